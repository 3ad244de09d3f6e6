#include "core/file_guard.h"

#if defined(__linux__)

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <mutex>

namespace edgeinfer {
namespace {

constexpr int kMost = 4096;  // a model may have a thousand parts

// A file as /proc/self/maps names it. What stat says is another number on some file systems.
struct Identity {
  uint64_t device = 0;
  uint64_t inode = 0;
  bool operator==(const Identity&) const = default;
};

struct Mapping {
  uintptr_t begin = 0, end = 0;
  Identity file;
};

// An entry is written once, before `count` shows it to the handler, and never removed.
struct Entry {
  Identity file;
  std::atomic<int> users = 0;
  std::atomic<uint64_t> losses = 0;
};

Entry entries[kMost];
std::atomic<int> count = 0;
std::mutex adding;
struct sigaction previous;
uintptr_t page_bytes = 0;

// Reads /proc/self/maps without memory of its own or a lock: it runs in a signal handler.
class Maps {
 public:
  Maps() : fd_(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC)) {}
  ~Maps() {
    if (fd_ >= 0) ::close(fd_);
  }

  /// The mapping that holds an address; false if none does.
  bool find(uintptr_t address, Mapping& found) {
    // begin-end perms offset major:minor inode path
    for (;;) {
      found.begin = number(16);
      if (at_end_) return false;
      found.end = number(16);
      skip_word();
      number(16);
      const uint64_t major = number(16);
      found.file.device = major << 32 | number(16);
      found.file.inode = number(10);
      while (!at_end_ && last_ != '\n') next();
      if (found.begin <= address && address < found.end) return true;
    }
  }

 private:
  /// A number and the one character behind it.
  uint64_t number(unsigned base) {
    uint64_t value = 0;
    for (char c = next(); !at_end_; c = next()) {
      if (c >= '0' && c <= '9')
        value = value * base + static_cast<uint64_t>(c - '0');
      else if (base == 16 && c >= 'a' && c <= 'f')
        value = value * base + static_cast<uint64_t>(c - 'a' + 10);
      else
        break;
    }
    return value;
  }
  void skip_word() {
    while (!at_end_ && next() != ' ') {
    }
  }
  char next() {
    if (at_ == size_) {
      ssize_t got;
      do got = ::read(fd_, buffer_, sizeof buffer_);
      while (got < 0 && errno == EINTR);
      at_ = 0;
      size_ = got > 0 ? static_cast<size_t>(got) : 0;
      at_end_ = size_ == 0;
      if (at_end_) return last_ = 0;
    }
    return last_ = buffer_[at_++];
  }

  const int fd_;
  char buffer_[1024];
  size_t at_ = 0, size_ = 0;
  char last_ = 0;
  bool at_end_ = false;
};

/// Whether the page at an address can be read now.
bool mend(uintptr_t address) {
  Mapping mapping;
  if (!Maps().find(address, mapping)) return false;
  if (mapping.file.inode == 0) return true;  // another thread was faster
  const int known = count.load(std::memory_order_acquire);
  for (int i = 0; i < known; ++i) {
    Entry& entry = entries[i];
    if (entry.file != mapping.file || entry.users.load() <= 0) continue;
    entry.losses.fetch_add(1);
    // Whatever is behind a missing page is missing, too, or about to be given up with it.
    const uintptr_t page = address / page_bytes * page_bytes;
    return ::mmap(reinterpret_cast<void*>(page), mapping.end - page, PROT_READ,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
  }
  return false;
}

void on_sigbus(int signal, siginfo_t* info, void* context) {
  const int error = errno;
  const bool mended =
      info->si_code == BUS_ADRERR && mend(reinterpret_cast<uintptr_t>(info->si_addr));
  errno = error;
  if (mended) return;
  if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(signal, info, context);
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
    return previous.sa_handler(signal);
  ::sigaction(SIGBUS, &previous, nullptr);
  ::raise(signal);
}

/// With `adding` held.
bool install() {
  if (page_bytes != 0) return true;
  page_bytes = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action{};
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigemptyset(&action.sa_mask);
  if (::sigaction(SIGBUS, &action, &previous) == 0) return true;
  page_bytes = 0;
  return false;
}

/// What the maps call a file: a page of it is mapped to see.
bool identify(int fd, Identity& file) {
  const auto size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  void* const page = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (page == MAP_FAILED) return false;
  Mapping mapping;
  const bool found = Maps().find(reinterpret_cast<uintptr_t>(page), mapping);
  ::munmap(page, size);
  file = mapping.file;
  return found && file.inode != 0;
}

}  // namespace

int guard_file(int fd) {
  Identity file;
  if (!identify(fd, file)) return -1;
  const std::lock_guard lock(adding);
  if (!install()) return -1;
  const int known = count.load();
  for (int i = 0; i < known; ++i) {
    if (entries[i].file == file) {
      entries[i].users.fetch_add(1);
      return i;
    }
  }
  if (known == kMost) return -1;
  entries[known].file = file;
  entries[known].users.store(1);
  count.store(known + 1, std::memory_order_release);
  return known;
}

void release_file(int number) {
  if (number >= 0 && number < count.load()) entries[number].users.fetch_sub(1);
}

uint64_t file_losses(int number) {
  return number >= 0 && number < count.load() ? entries[number].losses.load() : 0;
}

}  // namespace edgeinfer

#else

namespace edgeinfer {

int guard_file(int) { return -1; }
void release_file(int) {}
uint64_t file_losses(int) { return 0; }

}  // namespace edgeinfer

#endif
