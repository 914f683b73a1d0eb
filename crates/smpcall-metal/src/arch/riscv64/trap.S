# The trap entry. stvec is direct: with a vectored stvec, OpenSBI up to 1.5 passes the exceptions that it
# keeps for itself first (illegal instruction, access faults) to stvec with its mode bit left in, an odd
# address, and the report of the fault would be a hang.
#
# Interrupt entry saves the sixteen integer registers that the psABI lets a callee clobber, on the
# interrupted stack, and nothing else: s-registers are the callee's to save, tp never changes, FS and
# VS are Off, and interrupts do not nest, so sepc and sstatus survive by themselves. gp is this entry's
# own: compilers reserve it for the linker's relaxation, which lld does not do unless it is asked.

    .option relax
    .option arch, +a                # LTO forgets the target's extensions for file-level assembly
    .section .text.trap, "ax"

    .macro  SAVE
    addi    sp, sp, -128
    sd      ra, 0(sp)
    sd      t0, 8(sp)
    sd      t1, 16(sp)
    sd      t2, 24(sp)
    sd      a0, 32(sp)
    sd      a1, 40(sp)
    sd      a2, 48(sp)
    sd      a3, 56(sp)
    sd      a4, 64(sp)
    sd      a5, 72(sp)
    sd      a6, 80(sp)
    sd      a7, 88(sp)
    sd      t3, 96(sp)
    sd      t4, 104(sp)
    sd      t5, 112(sp)
    sd      t6, 120(sp)
    .endm

# The dummy SC ends a reservation that the handler's last LR may have left: the interrupted code
# may stand between its own LR and SC, and its SC would pair with the handler's LR. xRET need not
# end reservations (privileged ISA 3.3.2, which recommends this very remedy). The slot at sp is dead.
    .macro  RESTORE_AND_RETURN
    ld      ra, 0(sp)
    ld      t0, 8(sp)
    ld      t1, 16(sp)
    ld      t2, 24(sp)
    ld      a0, 32(sp)
    ld      a1, 40(sp)
    ld      a2, 48(sp)
    ld      a3, 56(sp)
    ld      a4, 64(sp)
    ld      a5, 72(sp)
    ld      a6, 80(sp)
    ld      a7, 88(sp)
    ld      t3, 96(sp)
    ld      t4, 104(sp)
    ld      t5, 112(sp)
    ld      t6, 120(sp)
    sc.d    zero, zero, (sp)
    addi    sp, sp, 128
    sret
    .endm

# Pending is cleared before the drain, so an IPI that arrives during it is pending again. A CSR
# write counts as device output and is not ordered with memory by itself (unprivileged ISA, Zicsr,
# "CSR access ordering"): without the fence, the drain's loads could come first, find nothing, and
# the clear would then wipe the doorbell of a sender that published in between. The "i" is the
# observation that the interrupt is pending.
    .align  2
    .globl smpcall_trap
smpcall_trap:
    csrr    gp, scause
    bgez    gp, fault
    addiw   gp, gp, -1              # supervisor software: cause 1 below the interrupt bit
    bnez    gp, 1f
    SAVE
    csrci   sip, 2
    fence   io, rw
    call    {ipi}
    RESTORE_AND_RETURN

1:  addiw   gp, gp, -4              # supervisor timer: cause 5; nothing else is enabled in sie
    bnez    gp, fault
    SAVE
    csrr    a0, sepc
    call    {timer}
    RESTORE_AND_RETURN

# Exceptions and unexpected interrupts end the machine, so registers are free to use. The first CPU
# takes the fault stack (its own may be the trouble) and reports; a fault inside the report exits at
# once; other CPUs wait for the end.
fault:
    mv      a0, sp
    mv      a1, ra
    addi    t2, tp, 1
    la      t0, smpcall_fault_owner
1:  lr.w.aq t1, (t0)
    bnez    t1, 2f
    sc.w    t1, t2, (t0)
    bnez    t1, 1b
    la      sp, smpcall_fault_stack_end
    call    {fault}
2:  bne     t1, t2, 3f
    la      sp, smpcall_fault_stack_end
    call    {fault_again}
3:  wfi
    j       3b

    .section .bss.fault, "aw", @nobits
    .align  4
    .skip   8192
smpcall_fault_stack_end:
smpcall_fault_owner:
    .skip   16
