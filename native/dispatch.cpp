// Instruction sets from best to plainest.
#include "dispatch.h"

#include <cstring>

#if defined(LESSEN_X86)
#include "amx.h"
#endif

namespace lessen {
namespace {

constexpr int SETS = 4;

#if defined(LESSEN_X86)
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vpopcntdq");
}
#endif

// Instruction sets from best to plainest; null where this processor lacks one.
const Kernel *available(int place) {
#if defined(LESSEN_X86)
    if (place == 0 && has_avx512() && tiles::usable()) return &amx;
    if (place == 1 && has_avx512()) return &avx512;
    if (place == 2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c")) return &avx2;
#elif defined(LESSEN_NEON)
    if (place == 0) return &neon;
#endif
    return place == SETS - 1 ? &scalar : nullptr;
}

const Kernel *best() {
    for (int place = 0; place < SETS; place++)
        if (const Kernel *kernel = available(place)) return kernel;
    return &scalar;
}

}  // namespace

const Kernel *kernel = best();

bool use(const char *isa) {
    for (int place = 0; place < SETS; place++)
        if (const Kernel *found = available(place); found && !std::strcmp(found->isa, isa)) {
            kernel = found;
            return true;
        }
    return false;
}

}  // namespace lessen
