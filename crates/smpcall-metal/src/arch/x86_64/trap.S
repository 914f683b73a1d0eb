// Interrupt entry: the call-function IPI, the timer, and everything that is an error.
//
// The IPI and the timer save the nine registers that a Rust function may clobber, and acknowledge
// the interrupt before they call it: a new IPI during the drain is then pending again, not lost.
// Interrupts stay off throughout. The CPU aligned the stack to 16 before it pushed five words;
// nine more keep a call aligned.
//
// There is one pair of entries for each mode of the local APIC, so that no entry asks for the mode.

    .macro eoi_x2apic
    mov     $0x80b, %ecx
    xor     %eax, %eax
    xor     %edx, %edx
    wrmsr
    .endm

    .macro eoi_xapic
    movl    $0, -0x11fff50          // 0xfee000b0 through the mapping at the top
    .endm

    .macro save
    cld
    push    %rax
    push    %rcx
    push    %rdx
    push    %rsi
    push    %rdi
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    .endm

    .macro restore_and_return
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rdi
    pop     %rsi
    pop     %rdx
    pop     %rcx
    pop     %rax
    iretq
    .endm

// A CPU that sleeps in `wait_for_interrupt` has no register to lose: the wait is a function call, so
// its caller has saved what it needs. The entry drops the interrupt frame, and the handler returns
// straight to the waiter, with interrupts off as the waiter expects. No restore, no IRET.
    .macro entries mode
    .balign 64
    .global ipi_entry_\mode
ipi_entry_\mode:
    cmpq    $woken, (%rsp)
    je      1f
    save
    eoi_\mode
    call    {ipi}
    restore_and_return
1:  mov     24(%rsp), %rsp
    eoi_\mode
    jmp     {ipi}

    .global timer_entry_\mode
timer_entry_\mode:
    save
    eoi_\mode
    mov     72(%rsp), %rdi
    call    {timer}
    restore_and_return
    .endm

    .text
    entries x2apic
    entries xapic

    .global spurious_entry
spurious_entry:
    iretq

// STI takes effect after the instruction that follows it: an interrupt that is already pending is
// taken in HLT, never between the two, so it cannot be slept through.
    .balign 16
    .global wait_for_interrupt
wait_for_interrupt:
    sti
    hlt
woken:
    cli
    ret

// Every other vector: the pushed return address tells which stub, hence which vector, it was.
    .balign 8
    .global fault_stubs
fault_stubs:
    .rept   256
    .balign 8
    call    fault_entry
    .endr
fault_entry:
    push    %rax
    push    %rbx
    push    %rcx
    push    %rdx
    push    %rsi
    push    %rdi
    push    %rbp
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    cld
    mov     %rsp, %rdi
    and     $-16, %rsp
    call    {fault}
