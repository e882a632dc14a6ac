// TensorRT 10: engines that `nanosam build-engine --fp16` made on this machine.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

#include "runtime.h"

class Logger : public nvinfer1::ILogger {
  void log(Severity severity, const char* text) noexcept override {
    if (severity <= Severity::kERROR) std::cerr << text << "\n";
  }
};

struct DeviceBuffer {
  void* data = nullptr;
  explicit DeviceBuffer(size_t bytes) {
    if (cudaMalloc(&data, bytes) != cudaSuccess) throw std::runtime_error("no GPU memory");
  }
  ~DeviceBuffer() { cudaFree(data); }
  DeviceBuffer(const DeviceBuffer&) = delete;
};

class TensorRtModel : public Model {
 public:
  explicit TensorRtModel(const std::string& path) : runtime_(nvinfer1::createInferRuntime(logger_)) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
    if (!engine_) throw std::runtime_error("TensorRT cannot load " + path + ": it is of another version or GPU");
    context_.reset(engine_->createExecutionContext());
  }

  int64_t input_side(const std::string& name) const override {
    const auto shape = engine_->getTensorShape(name.c_str());
    return shape.d[shape.nbDims - 1];
  }

  Tensors run(const Tensors& inputs) override {
    std::map<std::string, std::unique_ptr<DeviceBuffer>> buffers;
    for (const auto& [name, tensor] : inputs) {
      nvinfer1::Dims shape{int32_t(tensor.shape.size()), {}};
      std::copy(tensor.shape.begin(), tensor.shape.end(), shape.d);
      if (!context_->setInputShape(name.c_str(), shape)) throw std::runtime_error("the engine does not take this " + name);
      bind(buffers, name, tensor.data.size());
      cudaMemcpy(buffers[name]->data, tensor.data.data(), tensor.data.size() * 4, cudaMemcpyHostToDevice);
    }
    Tensors outputs;
    for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
      const char* name = engine_->getIOTensorName(i);
      if (engine_->getTensorIOMode(name) != nvinfer1::TensorIOMode::kOUTPUT) continue;
      const auto shape = context_->getTensorShape(name);
      size_t count = 1;
      for (int side = 0; side < shape.nbDims; ++side) count *= size_t(shape.d[side]);
      outputs[name] = {{shape.d, shape.d + shape.nbDims}, std::vector<float>(count)};
      bind(buffers, name, count);
    }
    if (!context_->enqueueV3(nullptr) || cudaDeviceSynchronize() != cudaSuccess)
      throw std::runtime_error("the engine failed");
    for (auto& [name, tensor] : outputs)
      cudaMemcpy(tensor.data.data(), buffers[name]->data, tensor.data.size() * 4, cudaMemcpyDeviceToHost);
    return outputs;
  }

 private:
  void bind(std::map<std::string, std::unique_ptr<DeviceBuffer>>& buffers, const std::string& name, size_t count) {
    buffers[name] = std::make_unique<DeviceBuffer>(count * 4);
    context_->setTensorAddress(name.c_str(), buffers[name]->data);
  }
  Logger logger_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
};

std::unique_ptr<Model> open_model(const std::string& path) { return std::make_unique<TensorRtModel>(path); }
