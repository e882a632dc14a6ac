// The server: what it answers, what it refuses, and whether it is there at all.

/** The server answered, and not with what was asked for. */
export class Refusal extends Error {
  constructor(status, { error, hint }) {
    super(error);
    this.status = status;
    this.hint = hint;
  }
}

/** The server does not answer. */
export class Gone extends Error {}

let watching = false;
const listeners = [];

/** Be told of `true` when the server is back, and of `false` when it is gone. */
export function onPresence(listener) {
  listeners.push(listener);
}

/** Ask; Refusal and Gone are thrown. */
export async function ask(method, path, query = {}, body = undefined) {
  const address = `${path}?${new URLSearchParams(query)}`;
  const how = { method };
  if (body !== undefined) {
    how.body = JSON.stringify(body);
    how.headers = { "content-type": "application/json" };
  }
  let answer;
  try {
    answer = await fetch(address, how);
  } catch (error) {
    watch();
    throw new Gone(error.message);
  }
  if (!answer.ok) throw new Refusal(answer.status, await wordsOf(answer));
  return answer;
}

export const askJson = async (...what) => (await ask(...what)).json();

async function wordsOf(answer) {
  try {
    return await answer.json();
  } catch {
    return { error: `the server answered ${answer.status}`, hint: "" };
  }
}

async function watch() {
  if (watching) return;
  watching = true;
  listeners.forEach((tell) => tell(false));
  for (let there = false; !there;) {
    await new Promise((done) => setTimeout(done, 500));
    there = await fetch("/health").then((answer) => answer.ok, () => false);
  }
  watching = false;
  listeners.forEach((tell) => tell(true));
}
