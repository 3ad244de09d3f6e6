// Fits: what an encoder searches for, said by each quant type as `Q::Fit`.
//
// The searches are in quant/encode/; they yield a Fitted, which `Q::join` turns into a block. Those
// of 256 values end with a stretch (quant/encode/scale.inl).
#pragma once

#include <cstdint>

#include "core/half.h"

namespace edgeinfer {

/// A fitted block, before its bits are put where the format wants them.
struct Fitted {
  Half d, dmin;
  int16_t scales[16], mins[16];  // of sub-blocks, where the type has them
  uint8_t codes[256];            // in the order of k; the code of the lowest grid value is 0
};

/// A grid of the integers Low..High.
template <int Low, int High>
struct Integers {
  static constexpr int kLow = Low, kHigh = High;
};

/// Distinct values, ascending.
template <int Count>
struct Levels {
  static constexpr int kCount = Count;
  int values[Count];

  /// The distinct table[i] - bias; `table` may be in any order and repeat values.
  static constexpr Levels of(const uint8_t (&table)[16], int bias) {
    Levels levels{};
    int count = 0;
    for (int value = 0; value < 256; ++value) {
      bool found = false;
      for (const uint8_t entry : table) found |= entry == value;
      if (found) levels.values[count++] = value - bias;
    }
    return levels;
  }
};

/// A grid of Levels; a code is a value's rank.
template <auto L>
struct LevelGrid {};

/// x = d * q, q in the grid: a least-squares scale for 32 values. Without importances PlainSteps
/// says how hard to look (see quant/encode/scale.inl): the oldest types are asked for in a hurry.
template <class Grid, int PlainSteps>
struct FitScale {};

/// x = d * q, q in -127..127: the largest magnitude becomes 127.
struct FitLargest {};

/// x = d * q, d a power of two that Fitted::scales[0] says as 2^(e - 128), q in the grid.
template <class Grid>
struct FitPower {};

/// x = d * q + m, q in 0..High, for 32 values; Fitted::dmin is m.
template <int High>
struct FitScaleMin {};

/// x = (d * scale) * q: 256 values in sub-blocks of Sub, scales in ScaleLow..ScaleHigh.
template <class Grid, int Sub, int ScaleLow, int ScaleHigh>
struct FitScales {};

/// x = (d * scale) * q - dmin * min: 256 values in sub-blocks of Sub, q in 0..High, scales and
/// minimums in 0..ScaleHigh.
template <int High, int Sub, int ScaleHigh>
struct FitScalesMins {};

/// What a grid's points do not say: the signs of their magnitudes, free or an even number of minus
/// in eight values; or for which values the levels go up or down by a shift.
enum class Beside { kSigns, kEvenSigns, kShiftOf8, kShiftOf32 };

/// x = d * (2 * scale + 1) * kFactor * level: 256 values, levels by points of a grid. Q says which:
/// kGrid, kBeside, kBesideCode (added to the codes of values with a minus or a shift down), and as
/// in packed.h kTable, kBias, kScaleBlock; kScaleMask is the largest scale.
template <class Q>
struct FitPoints {};

/// x = d * (q - 1), q in 0..2, for 256 values.
struct FitTernary {};

}  // namespace edgeinfer
