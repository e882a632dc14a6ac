// A model file behind three lines: openvino.cpp, onnxruntime.cpp and tensorrt.cpp each implement `open_model`.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> data;
};

using Tensors = std::map<std::string, Tensor>;  // by name

class Model {
 public:
  virtual ~Model() = default;
  virtual int64_t input_side(const std::string& name) const = 0;  // length of an input's last side
  virtual Tensors run(const Tensors& inputs) = 0;
};

std::unique_ptr<Model> open_model(const std::string& path);  // throws std::exception with the reason
