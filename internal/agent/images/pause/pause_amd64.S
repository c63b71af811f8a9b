# The pause process of a pod's sandbox: it holds the namespaces, lets dead
# children vanish, and ends with status 0 on SIGTERM or SIGINT.
#
# Both signals are blocked and waited for, so that they reach it as PID 1 of a
# namespace too, where unhandled ones are dropped. See go:generate in pause.go.
	.set SIG_IGN, 1
	.set SIGCHLD, 17
	.globl _start
	.text
_start:
	mov	$13, %eax		# rt_sigaction(SIGCHLD, &ignore, 0, 8)
	mov	$SIGCHLD, %edi
	lea	ignore(%rip), %rsi
	xor	%edx, %edx
	mov	$8, %r10d
	syscall
	mov	$14, %eax		# rt_sigprocmask(SIG_BLOCK, &signals, 0, 8)
	xor	%edi, %edi
	lea	signals(%rip), %rsi
	xor	%edx, %edx
	mov	$8, %r10d
	syscall
wait:	mov	$128, %eax		# rt_sigtimedwait(&signals, 0, 0, 8)
	lea	signals(%rip), %rdi
	xor	%esi, %esi
	xor	%edx, %edx
	mov	$8, %r10d
	syscall
	test	%eax, %eax
	jle	wait			# interrupted
	mov	$231, %eax		# exit_group(0)
	xor	%edi, %edi
	syscall
	.balign	8
signals: .quad	(1 << 1) | (1 << 14)	# SIGINT, SIGTERM
ignore:	.quad	SIG_IGN, 0, 0, 0	# struct sigaction
