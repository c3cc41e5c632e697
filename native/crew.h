// Threads that stay together for many small pieces of work, instead of being woken and waited for at each.
//
// A token goes through some five products a layer, each of a few dozen microseconds. With a fork and a join for each
// of them, every join waits until all threads were there, even where one that is held up had nothing left to do.
// Here there is one fork and one join in all. In between one thread leads: it does what is done once, and hands out
// what is shared. The others spin until there is something, help if they come in time, and are waited for only
// where they have taken a part. Which of them leads differs from call to call, so space that is kept for each thread
// may come to be there once for every thread.
#pragma once

namespace lessen {

// Do task(data) once, on one of so many threads; what it hands to `run` is shared with the others. Where the task had
// no memory, std::bad_alloc is thrown here.
void together(void (*task)(void *), void *data, int threads);

template <class Task>
void together(const Task &task, int threads) {
    together([](void *data) { (*static_cast<const Task *>(data))(); }, const_cast<Task *>(&task), threads);
}

// Share work(data) with the others of this thread's crew; false if it leads none. It returns when all is done.
bool shared(void (*work)(void *), void *data);

}  // namespace lessen
