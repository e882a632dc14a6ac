// ONNX Runtime: ONNX files on any CPU; add a provider to `options` for a GPU.
#include <onnxruntime_cxx_api.h>

#include "runtime.h"

class OnnxModel : public Model {
 public:
  explicit OnnxModel(const std::string& path) : session_(environment_, path.c_str(), Ort::SessionOptions{}) {
    Ort::AllocatorWithDefaultOptions allocator;
    for (size_t i = 0; i < session_.GetInputCount(); ++i)
      inputs_[session_.GetInputNameAllocated(i, allocator).get()] = i;
    for (size_t i = 0; i < session_.GetOutputCount(); ++i)
      outputs_.push_back(session_.GetOutputNameAllocated(i, allocator).get());
  }

  int64_t input_side(const std::string& name) const override {
    return session_.GetInputTypeInfo(inputs_.at(name)).GetTensorTypeAndShapeInfo().GetShape().back();
  }

  Tensors run(const Tensors& inputs) override {
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<const char*> names, wanted;
    std::vector<Ort::Value> values;
    for (const auto& [name, tensor] : inputs) {
      names.push_back(name.c_str());
      values.push_back(Ort::Value::CreateTensor<float>(memory, const_cast<float*>(tensor.data.data()),
                                                       tensor.data.size(), tensor.shape.data(), tensor.shape.size()));
    }
    for (const auto& name : outputs_) wanted.push_back(name.c_str());
    auto found = session_.Run(Ort::RunOptions{}, names.data(), values.data(), values.size(), wanted.data(), wanted.size());
    Tensors outputs;
    for (size_t i = 0; i < found.size(); ++i) {
      const auto info = found[i].GetTensorTypeAndShapeInfo();
      const float* data = found[i].GetTensorData<float>();
      outputs[outputs_[i]] = {info.GetShape(), {data, data + info.GetElementCount()}};
    }
    return outputs;
  }

 private:
  Ort::Env environment_{ORT_LOGGING_LEVEL_ERROR};
  Ort::Session session_;
  std::map<std::string, size_t> inputs_;
  std::vector<std::string> outputs_;
};

std::unique_ptr<Model> open_model(const std::string& path) { return std::make_unique<OnnxModel>(path); }
