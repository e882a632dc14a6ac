// A photo and a box in, a mask out: the file contract of docs/contract.md in C++, with OpenCV for pictures.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "runtime.h"

constexpr int kFrame = 1024;  // side of the square that points live in, whatever the model's own side is
const cv::Scalar kMean(123.675, 116.28, 103.53), kStd(58.395, 57.12, 57.375);  // RGB from 0 to 255

struct Placed {  // where a photo lies in the model's square
  cv::Size photo, input;
  int side;
  Placed(cv::Size size, int model_side) : photo(size), side(model_side) {
    const double scale = double(side) / std::max(size.width, size.height);
    input = {std::max(1, int(size.width * scale + 0.5)), std::max(1, int(size.height * scale + 0.5))};
  }
  float x(double x) const { return float(x * input.width / photo.width * kFrame / side); }
  float y(double y) const { return float(y * input.height / photo.height * kFrame / side); }
  cv::Rect covered() const {  // of the frame
    const double factor = double(kFrame) / side;
    return {0, 0, std::max(1, int(std::nearbyint(input.width * factor))),
            std::max(1, int(std::nearbyint(input.height * factor)))};
  }
};

// Bilinear along x, over the whole width of each new pixel where the picture shrinks: Pillow's BILINEAR
cv::Mat resize_width(const cv::Mat& from, int width) {
  if (from.cols == width) return from;
  const double scale = double(from.cols) / width, reach = std::max(scale, 1.0);
  cv::Mat to(from.rows, width, CV_32FC3, cv::Scalar::all(0));
  for (int x = 0; x < width; ++x) {
    const double centre = (x + 0.5) * scale;
    const int first = std::max(0, int(centre - reach + 0.5)), last = std::min(from.cols, int(centre + reach + 0.5));
    std::vector<float> weights;
    float sum = 0;
    for (int i = first; i < last; ++i) {
      weights.push_back(float(std::max(0.0, 1 - std::abs((i + 0.5 - centre) / reach))));
      sum += weights.back();
    }
    for (int y = 0; y < from.rows; ++y)
      for (int i = first; i < last; ++i) to.at<cv::Vec3f>(y, x) += from.at<cv::Vec3f>(y, i) * (weights[i - first] / sum);
  }
  return to;
}

Tensor encoder_input(const cv::Mat& photo_bgr, const Placed& placed) {
  cv::Mat rgb, turned;
  cv::cvtColor(photo_bgr, rgb, cv::COLOR_BGR2RGB);
  rgb.convertTo(rgb, CV_32FC3);
  cv::transpose(resize_width(rgb, placed.input.width), turned);
  cv::transpose(resize_width(turned, placed.input.height), rgb);
  rgb.convertTo(rgb, CV_8UC3);  // whole values from 0 to 255, rounded
  rgb.convertTo(rgb, CV_32FC3);
  cv::subtract(rgb, kMean, rgb);
  cv::divide(rgb, kStd, rgb);
  Tensor image{{1, 3, placed.side, placed.side}, std::vector<float>(size_t(3) * placed.side * placed.side)};  // zeros
  std::vector<cv::Mat> planes;
  for (int channel = 0; channel < 3; ++channel) {
    cv::Mat plane(placed.side, placed.side, CV_32F, image.data.data() + size_t(channel) * placed.side * placed.side);
    planes.push_back(plane(cv::Rect({0, 0}, placed.input)));
  }
  cv::split(rgb, planes);
  return image;
}

Tensors prompt(const Tensor& embedding, const cv::Rect2d& box, const Placed& placed) {
  const float x0 = placed.x(box.x), y0 = placed.y(box.y);
  const float x1 = placed.x(box.x + box.width), y1 = placed.y(box.y + box.height);
  return {{"image_embeddings", embedding},
          {"point_coords", {{1, 2, 2}, {x0, y0, x1, y1}}},
          {"point_labels", {{1, 2}, {2, 3}}},  // top left and bottom right corner of a box
          {"mask_input", {{1, 1, 256, 256}, std::vector<float>(256 * 256)}},
          {"has_mask_input", {{1}, {0}}}};
}

cv::Mat photo_mask(const Tensor& low_res_masks, const Placed& placed) {
  const cv::Mat first(256, 256, CV_32F, const_cast<float*>(low_res_masks.data.data()));  // mask 0 answers boxes
  cv::Mat square, logits;
  cv::resize(first, square, {kFrame, kFrame}, 0, 0, cv::INTER_LINEAR);
  cv::resize(square(placed.covered()), logits, placed.photo, 0, 0, cv::INTER_LINEAR);
  return logits > 0;
}

void segment(char** arguments) {
  const cv::Mat photo = cv::imread(arguments[3], cv::IMREAD_COLOR);  // upright, by its EXIF entry
  if (photo.empty()) throw std::runtime_error(std::string("cannot read the photo ") + arguments[3]);
  double x0, y0, x1, y1;
  if (std::sscanf(arguments[4], "%lf,%lf,%lf,%lf", &x0, &y0, &x1, &y1) != 4 || x0 >= x1 || y0 >= y1)
    throw std::runtime_error(std::string("not a box x0,y0,x1,y1: ") + arguments[4]);
  const auto encoder = open_model(arguments[1]), decoder = open_model(arguments[2]);
  const Placed placed(photo.size(), int(encoder->input_side("image")));
  const Tensor embedding = encoder->run({{"image", encoder_input(photo, placed)}}).at("image_embeddings");
  const cv::Rect2d box = cv::Rect2d({x0, y0}, cv::Point2d{x1, y1}) & cv::Rect2d(0, 0, photo.cols, photo.rows);
  if (box.empty()) throw std::runtime_error("the box lies outside the photo");
  const Tensors found = decoder->run(prompt(embedding, box, placed));
  if (!cv::imwrite(arguments[5], photo_mask(found.at("low_res_masks"), placed)))
    throw std::runtime_error(std::string("cannot write ") + arguments[5]);
  std::cout << "predicted IoU " << found.at("iou_predictions").data[0] << "\n";
}

int main(int count, char** arguments) {
  if (count != 6) {
    std::cerr << "usage: " << arguments[0] << " ENCODER DECODER PHOTO x0,y0,x1,y1 MASK.png\n";
    return 2;
  }
  try {
    segment(arguments);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
