#pragma once

#include <string>
#include <vector>

/// A version of a kernel file with one fault in it.
struct Mutant {
  int set;  // as shim::find_kernel takes it
  std::string file, name;
};

/// Written by make_mutants.
const std::vector<Mutant>& mutants();
