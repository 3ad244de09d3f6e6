#include "core/memory_region.h"

#include <sys/mman.h>

#include <new>

namespace edgeinfer {
namespace {
constexpr size_t kHugePage = size_t{2} << 20;
}

MemoryRegion::MemoryRegion(size_t bytes, Pages pages) : size_(bytes) {
  if (bytes == 0) return;
  reserved_ = bytes + (pages == Pages::kHuge ? kHugePage : 0);
  base_ = ::mmap(nullptr, reserved_, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base_ == MAP_FAILED) {
    base_ = nullptr;
    throw std::bad_alloc();
  }
  auto address = reinterpret_cast<uintptr_t>(base_);
  if (pages == Pages::kHuge) {
    address = (address + kHugePage - 1) / kHugePage * kHugePage;
#if defined(MADV_HUGEPAGE)
    // Whole pages only: a huge page at the ragged end would be resident without need.
    ::madvise(reinterpret_cast<void*>(address), bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  }
  data_ = reinterpret_cast<uint8_t*>(address);
}

MemoryRegion::~MemoryRegion() {
  if (base_) ::munmap(base_, reserved_);
}

}  // namespace edgeinfer
