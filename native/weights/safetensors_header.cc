#include "weights/safetensors_header.h"

#include <algorithm>
#include <limits>

#include "error.h"

namespace peft {
namespace {

/// A strict reader of the only JSON shapes that a safetensors header may hold; no recursion, so no depth to
/// abuse.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  TensorTable parse() {
    TensorTable table;
    bool has_metadata = false;
    parse_object([&](const std::string& key) {
      if (key == "__metadata__") {
        if (has_metadata) fail("the key __metadata__ appears twice");
        has_metadata = true;
        parse_object([&](const std::string&) { parse_string(); });
        return;
      }
      if (!table.emplace(key, parse_entry()).second) fail("the key \"" + key + "\" appears twice");
    });
    skip_space();
    if (pos_ != text_.size()) fail("text after the end of the header object");
    return table;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw EngineError(
        "MODEL_CORRUPT",
        path_ + ": not a valid safetensors header: " + what + " (byte " + std::to_string(8 + pos_) + ")",
        "Download or export the file again.");
  }

  void skip_space() {
    while (pos_ < text_.size() && std::string_view(" \t\r\n").find(text_[pos_]) != std::string_view::npos)
      pos_++;
  }

  bool accept(char c) {
    skip_space();
    if (pos_ >= text_.size() || text_[pos_] != c) return false;
    pos_++;
    return true;
  }

  void expect(char c) {
    if (!accept(c)) fail(std::string("expected '") + c + "'");
  }

  template <typename F>
  void parse_object(F on_key) {
    expect('{');
    if (accept('}')) return;
    do {
      const std::string key = parse_string();
      expect(':');
      on_key(key);
    } while (accept(','));
    expect('}');
  }

  template <typename F>
  void parse_array(F on_item) {
    expect('[');
    if (accept(']')) return;
    do on_item();
    while (accept(','));
    expect(']');
  }

  uint64_t parse_unsigned() {
    skip_space();
    const size_t start = pos_;
    uint64_t value = 0;
    for (; pos_ < text_.size() && text_[pos_] >= '0' && text_[pos_] <= '9'; pos_++) {
      const uint64_t digit = static_cast<uint64_t>(text_[pos_] - '0');
      if (value > (std::numeric_limits<uint64_t>::max() - digit) / 10)
        fail("a number that does not fit 64 bits");
      value = value * 10 + digit;
    }
    if (pos_ == start) fail("expected a whole number");
    return value;
  }

  std::string parse_string() {
    expect('"');
    std::string out;
    while (true) {
      if (pos_ >= text_.size()) fail("a string without its closing quote");
      const char c = text_[pos_++];
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
      out += c == '\\' ? parse_escape() : std::string(1, c);
    }
  }

  std::string parse_escape() {
    if (pos_ >= text_.size()) fail("a string without its closing quote");
    const char c = text_[pos_++];
    static constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
    if (const size_t at = kNames.find(c); at != std::string_view::npos) return std::string(1, kValues[at]);
    // Escaped code points occur in metadata only; they are kept as written, since no key of ours needs them.
    if (c == 'u') return "\\u";
    fail("an unknown escape in a string");
  }

  TensorEntry parse_entry() {
    TensorEntry entry;
    int seen = 0;
    parse_object([&](const std::string& key) {
      if (key == "dtype") {
        entry.dtype = parse_string();
        seen |= 1;
      } else if (key == "shape") {
        parse_array([&] {
          const uint64_t size = parse_unsigned();
          if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
            fail("a dimension above 2^63");
          entry.shape.push_back(static_cast<int64_t>(size));
        });
        seen |= 2;
      } else if (key == "data_offsets") {
        std::vector<uint64_t> offsets;
        parse_array([&] { offsets.push_back(parse_unsigned()); });
        if (offsets.size() != 2) fail("data_offsets must be two numbers");
        entry.begin = offsets[0];
        entry.end = offsets[1];
        seen |= 4;
      } else {
        fail("unknown field \"" + key + "\" of a tensor");
      }
    });
    if (seen != 7) fail("a tensor needs dtype, shape and data_offsets");
    return entry;
  }

  std::string_view text_;
  const std::string& path_;
  size_t pos_ = 0;
};

}  // namespace

uint64_t TensorEntry::elements() const {
  uint64_t product = 1;
  for (const int64_t size : shape) {
    if (size != 0 && product > std::numeric_limits<uint64_t>::max() / static_cast<uint64_t>(size)) {
      return std::numeric_limits<uint64_t>::max();
    }
    product *= static_cast<uint64_t>(size);
  }
  return product;
}

int dtype_bytes(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL") return 1;
  return 0;
}

TensorTable parse_safetensors_header(std::string_view json, uint64_t data_bytes, const std::string& path) {
  TensorTable table = HeaderParser(json, path).parse();
  const auto fail = [&](const std::string& key, const std::string& what) {
    throw EngineError("MODEL_CORRUPT", path + ": tensor \"" + key + "\": " + what,
                      "Download or export the file again.");
  };
  std::vector<std::pair<uint64_t, const std::string*>> order;
  for (const auto& [key, entry] : table) {
    const int width = dtype_bytes(entry.dtype);
    if (width == 0) fail(key, "unknown dtype " + entry.dtype);
    if (entry.end < entry.begin) fail(key, "data_offsets end before they begin");
    const uint64_t elements = entry.elements();
    if (elements > data_bytes / static_cast<uint64_t>(width) || elements * width != entry.end - entry.begin) {
      fail(key, "its shape and dtype do not fill its " + std::to_string(entry.end - entry.begin) + " bytes");
    }
    order.emplace_back(entry.begin, &key);
  }
  std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    return std::make_pair(a.first, table.at(*a.second).end) <
           std::make_pair(b.first, table.at(*b.second).end);
  });
  uint64_t position = 0;
  for (const auto& [begin, key] : order) {
    if (begin != position) fail(*key, "a hole or an overlap before it in the file");
    position = table.at(*key).end;
  }
  if (position != data_bytes) {
    throw EngineError("MODEL_CORRUPT",
                      path + ": the header describes " + std::to_string(position) +
                          " bytes of tensors, the file holds " + std::to_string(data_bytes),
                      "The file is cut short or has something appended: download it again.");
  }
  return table;
}

std::string format_safetensors_header(const TensorTable& table) {
  std::string json = R"({"__metadata__":{"format":"pt"})";
  for (const auto& [key, entry] : table) {
    json += ",\"" + key + R"(":{"dtype":")" + entry.dtype + R"(","shape":[)";
    for (size_t i = 0; i < entry.shape.size(); i++) json += (i ? "," : "") + std::to_string(entry.shape[i]);
    json += R"(],"data_offsets":[)" + std::to_string(entry.begin) + "," + std::to_string(entry.end) + "]}";
  }
  json += "}";
  json.append((8 - json.size() % 8) % 8, ' ');
  return json;
}

}  // namespace peft
