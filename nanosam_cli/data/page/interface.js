// The interface as a page, from openapi.json.

import { element } from "./panels.js";

const find = (id) => document.getElementById(id);

function nameOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(nameOf).join(" | ");
  if (schema.prefixItems) return `[${schema.prefixItems.map(nameOf).join(", ")}]`;
  if (schema.type === "array") return `list of ${nameOf(schema.items)}`;
  return schema.const ? JSON.stringify(schema.const) : schema.type ?? "any";
}

function table(rows) {
  return element("table", {}, ...rows.map(([name, kind, about]) => element("tr", {},
    element("td", {}, element("code", {}, name)), element("td", {}, kind), element("td", {}, about ?? ""))));
}

function route(path, method, about) {
  const made = element("section", {}, element("h2", {}, element("code", {}, `${method.toUpperCase()} ${path}`)),
    element("p", {}, `${about.summary}. ${about.description ?? ""}`));
  const given = (about.parameters ?? []).map((one) => [`?${one.name}=`, nameOf(one.schema), one.description ?? one.schema.description]);
  const kinds = (content) => Object.entries(content ?? {}).map(([kind, { schema }]) => [kind, nameOf(schema), ""]);
  if (given.length) made.append(table(given));
  if (about.requestBody) made.append(element("p", {}, `Body. ${about.requestBody.description ?? ""}`), table(kinds(about.requestBody.content)));
  made.append(element("p", {}, "Answers"), table(Object.entries(about.responses).map(([status, answer]) => [
    status, kinds(answer.content).map(([kind, name]) => (name && name !== "any" ? name : kind)).join(", "), answer.description])));
  return made;
}

const api = await (await fetch("/openapi.json")).json();
find("about").textContent = `${api.info.description} Version ${api.info.version}.`;
const routes = Object.entries(api.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, about]) => route(path, method, about)));
const types = Object.entries(api.components.schemas).filter(([, schema]) => schema.properties).map(([name, schema]) =>
  element("section", {}, element("h2", {}, name), element("p", {}, schema.description ?? ""),
    table(Object.entries(schema.properties).map(([key, one]) => [key, nameOf(one), one.description]))));
find("routes").replaceChildren(...routes, ...types);
