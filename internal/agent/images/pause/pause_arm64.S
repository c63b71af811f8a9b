// The pause process of a pod's sandbox; see pause_amd64.S.
	.set SIG_IGN, 1
	.set SIGCHLD, 17
	.globl _start
	.text
_start:
	mov	x8, #134		// rt_sigaction(SIGCHLD, &ignore, 0, 8)
	mov	x0, #SIGCHLD
	adr	x1, ignore
	mov	x2, #0
	mov	x3, #8
	svc	#0
	mov	x8, #135		// rt_sigprocmask(SIG_BLOCK, &signals, 0, 8)
	mov	x0, #0
	adr	x1, signals
	mov	x2, #0
	mov	x3, #8
	svc	#0
wait:	mov	x8, #137		// rt_sigtimedwait(&signals, 0, 0, 8)
	adr	x0, signals
	mov	x1, #0
	mov	x2, #0
	mov	x3, #8
	svc	#0
	cmp	x0, #0
	b.le	wait			// interrupted
	mov	x8, #94			// exit_group(0)
	mov	x0, #0
	svc	#0
	.balign	8
signals: .quad	(1 << 1) | (1 << 14)	// SIGINT, SIGTERM
ignore:	.quad	SIG_IGN, 0, 0, 0	// struct sigaction
