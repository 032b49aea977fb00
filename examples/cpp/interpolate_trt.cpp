// Writes the frame between two PNG images, with an engine of ifrnet-deploy in TensorRT.
//
// interpolate_trt MODEL.engine FRAME0.png FRAME1.png OUTPUT.png [TIME]
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include "command.hpp"

class Logger : public nvinfer1::ILogger {
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kWARNING) std::cerr << message << "\n";
    }
};

static void check(cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

template <typename T>
static std::unique_ptr<T> made(T* object) {
    if (!object) throw std::runtime_error("TensorRT cannot run this engine: see its message above");
    return std::unique_ptr<T>(object);
}

// GPU memory that is freed at the end of its scope.
static std::unique_ptr<void, decltype(&cudaFree)> gpu_memory(std::size_t bytes) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes));
    return {memory, cudaFree};
}

static Image interpolate(const std::string& path, const Image& frame0, const Image& frame1,
                         float time) {
    const std::string artefact = read_artefact(path);
    Logger logger;
    auto runtime = made(nvinfer1::createInferRuntime(logger));
    runtime->setEngineHostCodeAllowed(true);  // A portable engine has code; the hash was checked.
    auto engine = made(runtime->deserializeCudaEngine(artefact.data(), artefact.size()));
    auto context = made(engine->createExecutionContext());

    const nvinfer1::Dims frame{4, {1, static_cast<int>(frame0.height),
                                   static_cast<int>(frame0.width), 3}};
    const nvinfer1::Dims scalar{4, {1, 1, 1, 1}};
    // Refuses other sizes than that of the engine, or outside its profile.
    for (const char* name : {"img0", "img1"})
        if (engine->getTensorDataType(name) != nvinfer1::DataType::kUINT8 ||
            !context->setInputShape(name, frame))
            throw std::runtime_error(path + " takes no such frames: it was built for another size "
                                            "or with --io float");
    if (!context->setInputShape("timestep", scalar))
        throw std::runtime_error(path + " takes several time steps: build it without them");

    Image result{frame0.height, frame0.width, std::vector<std::uint8_t>(frame0.rgb.size())};
    auto img0 = gpu_memory(frame0.rgb.size()), img1 = gpu_memory(frame0.rgb.size());
    auto timestep = gpu_memory(sizeof time), imgt = gpu_memory(frame0.rgb.size());
    const std::map<const char*, void*> memory = {{"img0", img0.get()}, {"img1", img1.get()},
                                                 {"timestep", timestep.get()}, {"imgt", imgt.get()}};
    for (const auto& [name, address] : memory)
        if (!context->setTensorAddress(name, address))
            throw std::runtime_error(path + " has no tensor " + name);

    cudaStream_t stream;
    check(cudaStreamCreate(&stream));
    const auto copy = [&](void* to, const void* from, std::size_t bytes) {
        check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
    };
    copy(img0.get(), frame0.rgb.data(), frame0.rgb.size());
    copy(img1.get(), frame1.rgb.data(), frame1.rgb.size());
    copy(timestep.get(), &time, sizeof time);
    if (!context->enqueueV3(stream)) throw std::runtime_error("TensorRT could not start");
    copy(result.rgb.data(), imgt.get(), result.rgb.size());
    check(cudaStreamSynchronize(stream));
    check(cudaStreamDestroy(stream));
    return result;
}

int main(int count, char** arguments) { return run(count, arguments, interpolate); }
