# cmake -DFOLDER=native/cuda -DOUT=FILE -P embed.cmake: the kernels and their headers as string literals.
function(peft_literals out)
  set(text "")
  foreach(name ${ARGN})
    file(READ ${FOLDER}/${name} content)
    string(APPEND text "      {\"${name}\", R\"kernel(${content})kernel\"},\n")
  endforeach()
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

file(GLOB PROGRAMS RELATIVE ${FOLDER} ${FOLDER}/*.cu)
peft_literals(PROGRAM_TEXT ${PROGRAMS})
peft_literals(HEADER_TEXT kernel_args.h device.h four_bit.h philox.h attention_tile.h)
file(WRITE ${OUT} "#include \"cuda/kernel_source.h\"

namespace peft::cuda {

const std::vector<KernelSource>& kernel_programs() {
  static const std::vector<KernelSource> all = {
${PROGRAM_TEXT}  };
  return all;
}

const std::vector<KernelSource>& kernel_headers() {
  static const std::vector<KernelSource> all = {
${HEADER_TEXT}  };
  return all;
}

}  // namespace peft::cuda
")
