#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace peft {

/// An error with one of the codes of lib/errors.ts; crosses the binding as {code, message, hint}.
class EngineError : public std::runtime_error {
 public:
  EngineError(std::string code, const std::string& message, std::string hint = "")
      : std::runtime_error(message), code_(std::move(code)), hint_(std::move(hint)) {}

  const std::string& code() const { return code_; }
  const std::string& hint() const { return hint_; }

 private:
  std::string code_;
  std::string hint_;
};

}  // namespace peft
