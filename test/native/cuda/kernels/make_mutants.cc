// make_mutants KERNEL_FOLDER MUTANTS_TXT OUT: one C++ source with every kernel file as it is (set 0) and once
// for each fault of the list, in a namespace each, and the table of the faults.

#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

const std::vector<std::string> kBarriers = {"__syncthreads();", "__syncwarp();"};
const std::vector<std::string> kFiles = {"attention.cu",
                                         "attention_backward.cu",
                                         "four_bit_dequantize.cu",
                                         "four_bit_linear.cu",
                                         "gelu.cu",
                                         "int8.cu",
                                         "layer_norm.cu",
                                         "pooling.cu"};

struct Mutant {
  std::string file, name, find, with;
};

std::string read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The file with its headers in place of their includes, each once; kernel_args.h is shared by all versions.
std::string inlined(const std::string& folder, const std::string& file, std::vector<std::string>& seen) {
  for (const std::string& each : seen) {
    if (each == file) return "";
  }
  seen.push_back(file);
  std::istringstream lines(read(folder + "/" + file));
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    const std::string include = "#include \"";
    if (line == "#pragma once") continue;
    if (line.rfind(include, 0) != 0) {
      out += line + "\n";
      continue;
    }
    const std::string name = line.substr(include.size(), line.size() - include.size() - 1);
    if (name != "kernel_args.h") out += inlined(folder, name, seen);
  }
  return out;
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) n++;
  return n;
}

std::vector<Mutant> read_mutants(const std::string& path) {
  std::vector<Mutant> mutants;
  std::istringstream lines(read(path));
  std::string* open = nullptr;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) {
      open = nullptr;
    } else if (line[0] == '#' && open == nullptr) {
      continue;
    } else if (line.rfind("for ", 0) == 0 && open == nullptr) {
      const size_t colon = line.find(": ");
      mutants.push_back({line.substr(4, colon - 4), line.substr(colon + 2), "", ""});
      open = &mutants.back().name;
    } else if (line.rfind("find ", 0) == 0) {
      open = &mutants.back().find;
      *open = line.substr(5);
    } else if (line.rfind("with ", 0) == 0) {
      open = &mutants.back().with;
      *open = line.substr(5);
    } else if (open != nullptr) {
      *open += "\n" + line;
    } else {
      throw std::runtime_error(path + ": cannot read the line \"" + line + "\"");
    }
  }
  return mutants;
}

std::string mutate(const std::string& text, const Mutant& mutant) {
  if (count(text, mutant.find) != 1) {
    throw std::runtime_error("the text of the mutant \"" + mutant.name + "\" stands " +
                             std::to_string(count(text, mutant.find)) + " times in " + mutant.file +
                             ", not once");
  }
  std::string out = text;
  return out.replace(out.find(mutant.find), mutant.find.size(), mutant.with);
}

void write_set(std::ostream& out, int set, const std::string& file, const std::string& text) {
  const std::string space = "set" + std::to_string(set) + "_" + file.substr(0, file.find('.'));
  out << "namespace " << space << " {\nconstexpr int kKernelSet = " << set << ";\n"
      << "namespace peft::cuda { using namespace ::peft::cuda; }\n"
      << text << "}\n";
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) out += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return out + "\"";
}

void run(const std::string& folder, const std::string& list, const std::string& target) {
  std::ofstream out(target);
  std::ostringstream table;
  const std::vector<Mutant> mutants = read_mutants(list);
  out << "#include \"mutants.h\"\n#include \"shim.h\"\n#include \"kernel_args.h\"\n";
  int set = 0, written = 0;
  for (const std::string& file : kFiles) {
    std::vector<std::string> seen;
    const std::string text = inlined(folder, file, seen);
    write_set(out, 0, file, text);
    const auto add = [&](const std::string& name, const std::string& changed) {
      write_set(out, ++set, file, changed);
      table << "  {" << set << ", " << quoted(file) << ", " << quoted(name) << "},\n";
    };
    for (const std::string& barrier : kBarriers) {
      int number = 0;
      for (size_t at = text.find(barrier); at != std::string::npos; at = text.find(barrier, at + 1)) {
        std::string changed = text;
        add(barrier + " " + std::to_string(++number) + " removed", changed.replace(at, barrier.size(), ";"));
      }
    }
    for (const Mutant& mutant : mutants) {
      if (mutant.file != file) continue;
      written++;
      add(mutant.name, mutate(text, mutant));
    }
  }
  if (written != static_cast<int>(mutants.size())) {
    throw std::runtime_error(list + " names a file that is no kernel");
  }
  out << "const std::vector<Mutant>& mutants() {\n  static const std::vector<Mutant> all = {\n"
      << table.str() << "  };\n  return all;\n}\n";
  if (!out.flush()) throw std::runtime_error("cannot write " + target);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 4) throw std::runtime_error("usage: make_mutants KERNEL_FOLDER MUTANTS_TXT OUT");
    run(argv[1], argv[2], argv[3]);
  } catch (const std::exception& e) {
    std::cerr << "make_mutants: " << e.what() << "\n";
    return 1;
  }
}
