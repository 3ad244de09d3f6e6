// unroll<N>(f): f(0), ..., f(N - 1) with constant indices.
//
// A fold expression, not a pragma: GCC unrolls loops after it has decided which arrays live in
// registers, so an array indexed by an unrolled loop stays in memory (20-45 % of the peak).
// Everything is always inlined, so units of different instruction sets share no symbol.
#pragma once

#include <utility>

#include "core/half.h"

#define EI_LAMBDA(i) [&](auto i) __attribute__((always_inline))
#define EI_NOINLINE __attribute__((noinline))
/// What is in memory is loaded again from here on. Else GCC keeps broadcasts of it for their next
/// use, and 16 registers are not enough: it stores 32 bytes to save a load of 4.
#define EI_LOAD_AGAIN() asm volatile("" ::: "memory")

namespace edgeinfer {

template <int I>
struct Index {
  static constexpr int value = I;
  EI_INLINE constexpr operator int() const { return I; }
};

template <class F, int... I>
EI_INLINE void unroll_sequence(F&& f, std::integer_sequence<int, I...>) {
  (f(Index<I>{}), ...);
}
template <int N, class F>
EI_INLINE void unroll(F&& f) {
  unroll_sequence(f, std::make_integer_sequence<int, N>{});
}

}  // namespace edgeinfer
