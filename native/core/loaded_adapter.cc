#include "core/loaded_adapter.h"

#include <algorithm>

#include "error.h"

namespace peft {

LoadedAdapter& adapter_named(LoadedAdapters& adapters, const std::string& name, const char* caller) {
  const auto found = adapters.find(name);
  if (found != adapters.end()) return found->second;
  if (name == kDefaultAdapter)
    throw EngineError("USAGE",
                      std::string(caller) + " needs an adapter; call createAdapter or loadAdapter first");
  throw EngineError("USAGE", std::string(caller) + ": no adapter \"" + name + "\" is loaded");
}

void require_unmerged(const LoadedAdapters& adapters, const std::string& name, const char* caller) {
  for (const auto& [other, lora] : adapters) {
    if (lora.merged_from().empty() || (other != name && lora.merged_from() != name)) continue;
    throw EngineError("USAGE", std::string(caller) + ": the adapter \"" + name + "\" is merged into the base",
                      "Remove \"" + other + "\", which holds the merged weights, first.");
  }
}

TextAdapters text_adapters(LoadedAdapters& adapters, const AdapterChoice& choice, int64_t texts) {
  using Texts = AdapterChoice::Texts;
  if (choice.texts == Texts::kBase || texts == 0) return {};
  if (choice.texts == Texts::kDefault) {
    const auto found = adapters.find(kDefaultAdapter);
    return found == adapters.end() ? TextAdapters{} : TextAdapters{{&found->second}, {}};
  }
  if (choice.texts == Texts::kNamed) return {{&adapter_named(adapters, choice.names.front(), "encode")}, {}};
  if (static_cast<int64_t>(choice.of_text.size()) != texts) {
    throw EngineError("USAGE", "encode: expected the adapter of " + std::to_string(texts) + " texts, got " +
                                   std::to_string(choice.of_text.size()));
  }
  TextAdapters used;
  std::vector<int32_t> place(choice.names.size(), -1);
  for (const int32_t name : choice.of_text) {
    if (name < -1 || name >= static_cast<int32_t>(choice.names.size())) {
      throw EngineError("USAGE", "encode: adapter " + std::to_string(name) + " of a text; there are " +
                                     std::to_string(choice.names.size()) + " names");
    }
    if (name >= 0 && place[name] < 0) {
      place[name] = static_cast<int32_t>(used.adapters.size());
      used.adapters.push_back(&adapter_named(adapters, choice.names[name], "encode"));
    }
    used.of_text.push_back(name < 0 ? -1 : place[name]);
  }
  const bool alike = std::ranges::all_of(used.of_text, [&](int32_t a) { return a == used.of_text.front(); });
  if (alike) used.of_text.clear();
  return used;
}

}  // namespace peft
