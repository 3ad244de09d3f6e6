// InputFile: reads ranges of a file into memory of the caller's.
//
// Weights are copied once more on their way to the packer, into a buffer that stays in the second
// level cache. That is faster than a map of the file, whose pages fault in 4 KB at a time (19
// against 10 GB/s with two threads), never counts as resident memory, and a file that shrinks
// meanwhile is an error, not a signal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace edgeinfer {

class InputFile {
 public:
  /// Throws std::system_error if the file cannot be opened.
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }

  /// Reads [offset, offset + size) into `to`; false if the file ends before. Throws
  /// std::system_error.
  bool read(uint64_t offset, size_t size, uint8_t* to) const;

 private:
  const std::string path_;
  int fd_;
};

}  // namespace edgeinfer
