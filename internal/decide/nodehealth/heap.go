package nodehealth

import "container/heap"

// queue is a priority queue whose items know where they are, so that any of them can be removed or moved in
// O(log n). place returns the address of the item's own position: 0 is "not in it".
type queue[T any] struct{ h heapOf[T] }

func newQueue[T any](less func(a, b T) bool, place func(T) *int32) queue[T] {
	return queue[T]{heapOf[T]{less: less, place: place}}
}

func (q *queue[T]) len() int     { return len(q.h.items) }
func (q *queue[T]) first() T     { return q.h.items[0] }
func (q *queue[T]) has(x T) bool { return *q.h.place(x) != 0 }

// put adds the item, or restores its order after its key changed.
func (q *queue[T]) put(x T) {
	if at := *q.h.place(x); at != 0 {
		heap.Fix(&q.h, int(at-1))
		return
	}
	heap.Push(&q.h, x)
}

// remove takes the item out, if it is in.
func (q *queue[T]) remove(x T) {
	if at := *q.h.place(x); at != 0 {
		heap.Remove(&q.h, int(at-1))
	}
}

// pop takes the least item out.
func (q *queue[T]) pop() T {
	x := q.first()
	heap.Pop(&q.h)
	return x
}

// heapOf is a queue as package container/heap wants it.
type heapOf[T any] struct {
	items []T
	less  func(a, b T) bool
	place func(T) *int32
}

// Len implements heap.Interface.
func (h *heapOf[T]) Len() int { return len(h.items) }

// Less implements heap.Interface.
func (h *heapOf[T]) Less(i, j int) bool { return h.less(h.items[i], h.items[j]) }

// Swap implements heap.Interface.
func (h *heapOf[T]) Swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.place(h.items[i]), *h.place(h.items[j]) = int32(i+1), int32(j+1)
}

// Push implements heap.Interface.
func (h *heapOf[T]) Push(x any) {
	item := x.(T)
	h.items = append(h.items, item)
	*h.place(item) = int32(len(h.items))
}

// Pop implements heap.Interface.
func (h *heapOf[T]) Pop() any {
	last := len(h.items) - 1
	x := h.items[last]
	var none T
	h.items[last] = none
	h.items = h.items[:last]
	*h.place(x) = 0
	return x
}
