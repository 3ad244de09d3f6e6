// MappedFile: a read-only view of a file whose pages can be given back as they are used up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace edgeinfer {

class MappedFile {
 public:
  /// Throws std::system_error if the file cannot be opened or mapped.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

  /// Tells the kernel that [offset, offset + length) will not be read again soon, so that it
  /// no longer counts as resident memory of this process.
  void release(size_t offset, size_t length) const;

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace edgeinfer
