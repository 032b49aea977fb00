// The command line that both programs share.
#pragma once

#include "files.hpp"

using Interpolate = Image (*)(const std::string& model, const Image& frame0, const Image& frame1,
                              float time);

// PROGRAM MODEL FRAME0.png FRAME1.png OUTPUT.png [TIME]. Returns the exit code.
int run(int count, char** arguments, Interpolate interpolate);
