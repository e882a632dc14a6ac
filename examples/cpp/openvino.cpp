// OpenVINO: ONNX files on Intel's and AMD's CPUs, and Intel's GPUs.
#include <algorithm>
#include <openvino/openvino.hpp>

#include "runtime.h"

class OpenVinoModel : public Model {
 public:
  explicit OpenVinoModel(const std::string& path) : model_(core_.compile_model(path, "CPU", exact())) {}

  int64_t input_side(const std::string& name) const override {
    const auto shape = model_.input(name).get_partial_shape();
    return shape[shape.size() - 1].get_length();
  }

  Tensors run(const Tensors& inputs) override {
    auto request = model_.create_infer_request();
    for (const auto& [name, tensor] : inputs) {
      ov::Tensor given(ov::element::f32, ov::Shape(tensor.shape.begin(), tensor.shape.end()));
      std::copy(tensor.data.begin(), tensor.data.end(), given.data<float>());
      request.set_tensor(name, given);
    }
    request.infer();
    Tensors outputs;
    for (const auto& port : model_.outputs()) {
      const ov::Tensor found = request.get_tensor(port);
      const float* data = found.data<float>();
      const auto shape = found.get_shape();
      outputs[port.get_any_name()] = {{shape.begin(), shape.end()}, {data, data + found.get_size()}};
    }
    return outputs;
  }

 private:
  static ov::AnyMap exact() { return {ov::hint::inference_precision(ov::element::f32)}; }
  ov::Core core_;
  ov::CompiledModel model_;
};

std::unique_ptr<Model> open_model(const std::string& path) { return std::make_unique<OpenVinoModel>(path); }
