// MemoryRegion: zeroed anonymous memory whose pages become resident when first written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace edgeinfer {

class MemoryRegion {
 public:
  /// Whether to ask for 2 MB pages: +20 % stream bandwidth for what is read whole, as weights
  /// and a KV cache that fills block by block are; wrong for what fills in many places.
  enum class Pages { kHuge, kSmall };

  MemoryRegion() = default;
  /// Throws std::bad_alloc if the address space cannot be reserved.
  MemoryRegion(size_t bytes, Pages pages);
  ~MemoryRegion();
  MemoryRegion(MemoryRegion&& other) noexcept { swap(other); }
  MemoryRegion& operator=(MemoryRegion&& other) noexcept {
    swap(other);
    return *this;
  }

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void swap(MemoryRegion& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(reserved_, other.reserved_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  void* base_ = nullptr;
  size_t reserved_ = 0;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace edgeinfer
