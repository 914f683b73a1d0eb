# The first instruction of the boot hart and of every started hart.
#
# The SBI enters both the same way: supervisor mode, satp = 0, interrupts off (SBI 2.0 section 9.1
# for HSM; section 3 of the boot protocol for the payload). All other registers are garbage.

    .option arch, +m                # LTO forgets the target's extensions for file-level assembly
    .section .text.boot, "ax"

# The boot hart: a0 = hart id, a1 = device tree. It becomes logical CPU 0.
    .globl _start
_start:
    la      t0, __bss_start
    la      t1, __bss_end
1:  bgeu    t0, t1, 2f
    sd      zero, 0(t0)
    addi    t0, t0, 8
    j       1b
2:  li      tp, 0
    la      t2, {boot}
    j       enter

# A hart that smp::start asked for: a0 = hart id, a1 = logical id.
    .globl smpcall_start_secondary
smpcall_start_secondary:
    mv      tp, a1
    la      t2, {secondary}

# tp = logical id, t2 = where to go with a0 and a1.
enter:
    csrw    sie, zero
    csrci   sstatus, 2              # SIE off
    li      t0, {fs_vs}
    csrc    sstatus, t0             # no floating-point or vector state

    la      sp, {stacks}            # the top of this CPU's stack
    addi    t0, tp, 1
    li      t1, {stack_size}
    mul     t0, t0, t1
    add     sp, sp, t0

    la      t0, {trap}
    csrw    stvec, t0

    la      t0, {root}              # the identity map
    srli    t0, t0, 12
    li      t1, {sv39}
    or      t0, t0, t1
    sfence.vma                      # nothing stale from the hart's earlier life
    csrw    satp, t0
    sfence.vma
    jr      t2
