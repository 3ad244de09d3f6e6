// What reading model files needs of C++: the loop over an array of strings, which is too long for
// Python, and the guard of maps.
#include <nanobind/nanobind.h>

#include <cstdint>
#include <cstring>

#include "bindings/bindings.h"
#include "core/file_guard.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgeinfer {
namespace {

/// A view of any object with a buffer; holds the buffer while it lives.
class View {
 public:
  explicit View(nb::handle object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw nb::python_error();
  }
  ~View() { PyBuffer_Release(&view_); }
  View(const View&) = delete;
  View& operator=(const View&) = delete;

  const char* data() const { return static_cast<const char*>(view_.buf); }
  uint64_t size() const { return static_cast<uint64_t>(view_.len); }

 private:
  Py_buffer view_{};
};

/// (list of strings, offset behind them), or None where edgeinfer.formats.gguf_header is to look
/// itself and say what is wrong. Each string is 8 bytes of length and then UTF-8.
nb::object read_strings(const nb::object& buffer, uint64_t offset, uint64_t count,
                        uint64_t longest) {
  const View view(buffer);
  if (offset > view.size() || count > (view.size() - offset) / 8) return nb::none();
  nb::object list = nb::steal(PyList_New(static_cast<Py_ssize_t>(count)));
  if (!list) throw nb::python_error();
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t left = view.size() - offset, length;
    if (left < 8) return nb::none();
    std::memcpy(&length, view.data() + offset, 8);
    if (length > longest || length > left - 8) return nb::none();
    offset += 8;
    PyObject* text =
        PyUnicode_DecodeUTF8(view.data() + offset, static_cast<Py_ssize_t>(length), "strict");
    if (!text) {
      if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) throw nb::python_error();
      PyErr_Clear();
      return nb::none();
    }
    PyList_SET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i), text);
    offset += length;
  }
  return nb::make_tuple(list, offset);
}

}  // namespace

void bind_formats(nb::module_& m) {
  m.def("read_strings", read_strings, "buffer"_a, "offset"_a, "count"_a, "longest"_a,
        nb::sig("def read_strings(buffer: object, offset: int, count: int, longest: int) -> "
                "tuple[list[str], int] | None"),
        "Reads the strings of a GGUF array: (strings, offset behind them). None if one is not "
        "whole, longer than allowed, or no UTF-8.");
  m.def("guard_file", guard_file, "fd"_a,
        "Lets missing pages of maps of an open file read as zeros and be counted. Returns its "
        "number, or -1 where that is not possible.");
  m.def("release_file", release_file, "number"_a, "Takes one guard off a file.");
  m.def("file_losses", file_losses, "number"_a, "How often pages of a file were missing.");
}

}  // namespace edgeinfer
