#include "kernels/dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "isa_list.inc"

namespace edgeinfer {

std::vector<const KernelSet*> usable_kernels() {
  std::vector<const IsaRow*> rows;
  for (const IsaRow& row : kIsas) {
    if (row.usable(cpu_features())) rows.push_back(&row);
  }
  std::ranges::sort(rows, std::greater{}, &IsaRow::rank);
  std::vector<const KernelSet*> kernels;
  for (const IsaRow* row : rows) kernels.push_back(row->kernels);
  return kernels;
}

const KernelSet& find_kernels(std::string_view name) {
  std::string known;
  for (const KernelSet* kernels : usable_kernels()) {
    if (kernels->name == name) return *kernels;
    known += (known.empty() ? "" : ", ") + std::string(kernels->name);
  }
  throw std::invalid_argument("no usable instruction set \"" + std::string(name) +
                              "\"; this machine runs " + known);
}

const EncoderSet& encoders_of(const KernelSet& kernels) {
  return *std::ranges::find(kIsas, &kernels, &IsaRow::kernels)->encoders;
}

const KernelSet& active_kernels() {
  static const KernelSet& active = []() -> const KernelSet& {
    const char* forced = std::getenv("EDGEINFER_ISA");
    if (forced && *forced) return find_kernels(forced);
    return *usable_kernels().front();
  }();
  return active;
}

}  // namespace edgeinfer
