package daemonset

// heap is a priority queue whose items know where they are, so that any of them can be removed or moved in
// O(log n). place returns the address of the item's own position in this heap: 0 is "not in it".
type heap[T comparable] struct {
	items []T
	less  func(a, b T) bool
	place func(T) *int32
}

func (h *heap[T]) len() int { return len(h.items) }

// min returns the least item; the heap must not be empty.
func (h *heap[T]) min() T { return h.items[0] }

// put adds the item, or restores its order after its key changed.
func (h *heap[T]) put(x T) {
	at := h.place(x)
	if *at == 0 {
		h.items = append(h.items, x)
		*at = int32(len(h.items))
	}
	i := int(*at) - 1
	if !h.down(i) {
		h.up(i)
	}
}

// remove takes the item out, if it is in.
func (h *heap[T]) remove(x T) {
	at := h.place(x)
	if *at == 0 {
		return
	}
	i, last := int(*at)-1, len(h.items)-1
	h.swap(i, last)
	var none T
	h.items[last] = none
	h.items = h.items[:last]
	*at = 0
	if i < last && !h.down(i) {
		h.up(i)
	}
}

// pop takes the least item out.
func (h *heap[T]) pop() T {
	x := h.min()
	h.remove(x)
	return x
}

func (h *heap[T]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.place(h.items[i]), *h.place(h.items[j]) = int32(i+1), int32(j+1)
}

func (h *heap[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(h.items[i], h.items[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

// down reports whether the item moved.
func (h *heap[T]) down(i int) bool {
	start := i
	for {
		child := 2*i + 1
		if child >= len(h.items) {
			break
		}
		if right := child + 1; right < len(h.items) && h.less(h.items[right], h.items[child]) {
			child = right
		}
		if !h.less(h.items[child], h.items[i]) {
			break
		}
		h.swap(i, child)
		i = child
	}
	return i > start
}
