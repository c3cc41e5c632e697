// The kernels of an instruction set, from what it has of its own: V does what float32 needs, Whole multiplies whole
// numbers, Bit compares signs, Nibbles multiplies 4 bits.
#pragma once

#include "attention.h"
#include "binary.h"
#include "cached.h"
#include "int4.h"
#include "rowwise.h"

namespace lessen {

// All but products of whole numbers, and of signs.
template <class V, class Bit, class Nibbles>
constexpr Kernel rest_of_kernel(const char *isa) {
    Kernel kernel{};
    kernel.isa = isa;
    kernel.columns = V::columns;
    kernel.panels = panels<V>;
    kernel.panels16 = panels<V, Brain>;
    kernel.panels_of_bytes = panels<V, int8_t>;
    kernel.attend = attend<V>;
    kernel.attention_space = attention_space<V>;

    kernel.quantize = quantize;
    kernel.to_signs = to_signs<Bit>;

    kernel.quantize_groups = quantize_groups;
    kernel.sixteens = sixteens<V, Nibbles>;

    kernel.largest = largest<V>;
    kernel.shares = shares<V>;
    kernel.read_row = read_row;
    kernel.activate = activate;
    kernel.add_norm = add_norm<V>;

    kernel.norm_row = norm_row<V>;
    kernel.attend_cached = attend_cached<V>;
    kernel.cached_space = cached_space<V>;
    return kernel;
}

template <class V, class Whole, class Bit, class Nibbles>
constexpr Kernel kernel_of(const char *isa) {
    Kernel kernel = rest_of_kernel<V, Bit, Nibbles>(isa);
    kernel.columns8 = Whole::columns;
    kernel.panels8 = panels8<Whole>;
    kernel.eights = eights<Bit>;
    kernel.signed_eights = signed_eights<V>;
    return kernel;
}

}  // namespace lessen
