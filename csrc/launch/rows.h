// What the launchers hand to kernels, on either device.
#pragma once

#include "stone/arguments.h"

namespace stone::launch {

enum class RadialMap { kExpmap0, kLogmap0 };
enum class Direction { kForward, kBackward };

}  // namespace stone::launch
