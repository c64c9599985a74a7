#pragma once

#include "oracle.h"

namespace peft::test {

/// Three steps of AdamW with its gradients clipped, by the session and beside it by the formulas, in double
/// precision, from the gradients that the session tells. Checks the norms.
/// @param start The weights that train, of any shape.
/// @param decays Which of them weight decay is for.
/// @return What the weights ought to be then, flat.
Weights follow_adam(Session& session, const ExampleBatch& batch, const Weights& start,
                    bool (*decays)(const std::string& key));

}  // namespace peft::test
