// The runner of the C++ tests (every tests/*_test.cc): they need no Python, so they also run under
// the sanitizers and under emulators of other processors.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
