# Which GPU architectures the CUDA compiler of this machine can compile for.

# Sets `result` to those of the wanted architectures (80 90 ...) that CMake can configure an empty CUDA project for, as
# CMAKE_CUDA_ARCHITECTURES takes them: machine code for each, and PTX of the last for newer GPUs. Where none works (nvcc
# is too old, or does not take this C++ compiler) it is empty, and `problem` is what the compiler said. The projects are
# configured by another CMake process, because in this one a compiler that does not work ends the configuration.
function(uqabench_cuda_architectures result problem)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/cuda-architectures)
  file(WRITE ${source}/CMakeLists.txt "cmake_minimum_required(VERSION 3.20)\nproject(probe LANGUAGES CUDA)\n")
  set(options -G ${CMAKE_GENERATOR} -DCMAKE_MAKE_PROGRAM=${CMAKE_MAKE_PROGRAM}
              -DCMAKE_CUDA_COMPILER=${CMAKE_CUDA_COMPILER})
  if(CMAKE_CUDA_HOST_COMPILER)
    list(APPEND options -DCMAKE_CUDA_HOST_COMPILER=${CMAKE_CUDA_HOST_COMPILER})
  endif()
  set(known)
  set(said)
  foreach(architecture IN LISTS ARGN)
    set(build ${source}/${architecture})
    file(REMOVE_RECURSE ${build})
    execute_process(COMMAND ${CMAKE_COMMAND} -S ${source} -B ${build} ${options}
                            -DCMAKE_CUDA_ARCHITECTURES=${architecture}
                    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
    if(status EQUAL 0)
      list(APPEND known ${architecture})
    elseif(output MATCHES "(nvcc fatal|[^\n]*error)[^\n]*")
      string(STRIP "${CMAKE_MATCH_0}" said)
    endif()
  endforeach()
  if(known)
    list(POP_BACK known newest)
    list(TRANSFORM known APPEND -real)
    list(APPEND known ${newest})
  endif()
  set(${result} ${known} PARENT_SCOPE)
  set(${problem} "${said}" PARENT_SCOPE)
endfunction()
