#include "weights/quant_state.h"

#include <charconv>
#include <cmath>
#include <map>

#include "error.h"

namespace peft {
namespace {

struct Value {
  std::string text;               // of a string, or a number as it is written
  std::vector<int64_t> integers;  // of an array
  bool array = false;
  bool quoted = false;
};

/// A flat JSON object of strings, numbers and arrays of whole numbers.
class StateParser {
 public:
  StateParser(const std::string& text, const std::string& where) : text_(text), where_(where) {}

  std::map<std::string, Value> parse() {
    std::map<std::string, Value> values;
    expect('{');
    do {
      const std::string key = string();
      expect(':');
      values[key] = value();
    } while (accept(','));
    expect('}');
    skip_space();
    if (pos_ != text_.size()) fail("text after its end");
    return values;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw EngineError("QUANT_STATE", where_ + ": not a quantisation state of bitsandbytes: " + what,
                      "Quantise the model again with `npx peft-train quantize`.");
  }

 private:
  void skip_space() {
    while (pos_ < text_.size() && (text_[pos_] == ' ' || text_[pos_] == '\n' || text_[pos_] == '\t')) pos_++;
  }
  bool accept(char c) {
    skip_space();
    if (pos_ >= text_.size() || text_[pos_] != c) return false;
    pos_++;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail(std::string("expected '") + c + "' at byte " + std::to_string(pos_));
  }
  std::string string() {
    expect('"');
    const size_t end = text_.find('"', pos_);
    if (end == std::string::npos) fail("a string without its closing quote");
    const std::string out = text_.substr(pos_, end - pos_);
    pos_ = end + 1;
    return out;
  }
  std::string word() {
    skip_space();
    const size_t end = text_.find_first_of(",]} \n", pos_);
    if (end == std::string::npos || end == pos_) fail("a value is missing at byte " + std::to_string(pos_));
    const std::string out = text_.substr(pos_, end - pos_);
    pos_ = end;
    return out;
  }
  Value value() {
    skip_space();
    if (pos_ < text_.size() && text_[pos_] == '"') return {string(), {}, false, true};
    if (!accept('[')) return {word(), {}, false, false};
    Value out{"", {}, true, false};
    if (accept(']')) return out;
    do out.integers.push_back(whole(word()));
    while (accept(','));
    expect(']');
    return out;
  }

 public:
  int64_t whole(const std::string& text) const {
    int64_t out = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (error != std::errc() || end != text.data() + text.size()) {
      fail("\"" + text + "\" is no whole number");
    }
    return out;
  }
  double real(const std::string& text) const {
    double out = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(static_cast<float>(out))) {
      fail("\"" + text + "\" is no finite number of float32");
    }
    return out;
  }

 private:
  const std::string& text_;
  const std::string& where_;
  size_t pos_ = 0;
};

/// The shortest digits that read back the same, laid out as Python's repr does.
std::string format_double(double x) {
  char buffer[64];
  const double size = std::abs(x);
  const bool plain = x == 0 || (size >= 1e-4 && size < 1e16);
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, x,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific)
                       .ptr;
  std::string text(buffer, end);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

}  // namespace

QuantState parse_quant_state(const std::string& json, const std::string& where) {
  StateParser parser(json, where);
  const std::map<std::string, Value> values = parser.parse();
  const auto get = [&](const std::string& key) -> const Value& {
    const auto found = values.find(key);
    if (found == values.end()) parser.fail("no " + key);
    return found->second;
  };
  const auto number = [&](const std::string& key) -> const std::string& {
    const Value& value = get(key);
    if (value.quoted || value.array) parser.fail(key + " is no number");
    return value.text;
  };
  QuantState state;
  const std::string type = get("quant_type").text;
  if (type != "nf4" && type != "fp4") parser.fail("quant_type \"" + type + "\"; expected nf4 or fp4");
  state.format = parse_weight_format(type);
  state.block_size = parser.whole(number("blocksize"));
  WeightStorage storage;
  storage.block_size = state.block_size;
  try {
    check_storage(storage);
  } catch (const EngineError& e) {
    parser.fail(e.what());
  }
  if (!get("shape").array) parser.fail("shape is no array");
  state.shape = get("shape").integers;
  state.nested = values.count("nested_offset") != 0;
  if (state.nested) {
    state.nested_offset = parser.real(number("nested_offset"));
    state.nested_block_size = parser.whole(number("nested_blocksize"));
    if (state.nested_block_size != 256) {
      parser.fail("nested_blocksize " + std::to_string(state.nested_block_size) + "; expected 256");
    }
  }
  return state;
}

std::string format_quant_state(const QuantState& state) {
  std::string text = std::string("{\"quant_type\": \"") + weight_format_name(state.format) +
                     "\", \"blocksize\": " + std::to_string(state.block_size) +
                     ", \"dtype\": \"float32\", \"shape\": [";
  for (size_t i = 0; i < state.shape.size(); i++) text += (i ? ", " : "") + std::to_string(state.shape[i]);
  text += "]";
  if (state.nested) {
    text += ", \"nested_blocksize\": " + std::to_string(state.nested_block_size) +
            ", \"nested_dtype\": \"float32\", \"nested_offset\": " + format_double(state.nested_offset);
  }
  return text + "}";
}

}  // namespace peft
