// FileGuard: a mapped file that shrinks, or whose disk fails, is an error and not the end of the
// process.
//
// Reading a page that is not there any more raises SIGBUS. For files under guard the handler puts
// pages of zeros in the place of what is missing and counts; whoever read looks at the count before
// believing what he has read. A SIGBUS of anything else goes to the handler that was there before.
// On Linux and Android; Windows does not let a mapped file shrink, elsewhere nothing is guarded.
#pragma once

#include <cstdint>

namespace edgeinfer {

/// Puts an open file under guard, once more if it is already. Returns its number, or -1 if this
/// system, or the table, does not allow it.
int guard_file(int fd);

/// Takes one guard off. A file without is as any other.
void release_file(int number);

/// How often pages of the file were missing since the process began.
uint64_t file_losses(int number);

}  // namespace edgeinfer
