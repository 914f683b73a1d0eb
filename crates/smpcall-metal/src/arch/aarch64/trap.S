// The exception vectors: two tables, one for each generation of interrupt controller.
//
// Only one kind of exception is ordinary here: an IRQ while the kernel runs at EL1 on SP_EL1. It is
// handled in the vector's own 32 instructions: save what a Rust function may clobber, acknowledge
// (which ends the pending state, so that an IPI sent from now on is a new one), end of interrupt,
// call. ELR_EL1 and SPSR_EL1 are not saved, because interrupts stay off until the eret; everything
// else that raises an exception is fatal and does not return.
//
// No braces outside of operands: this text goes through global_asm!'s format string.

    // What AAPCS64 lets a callee clobber: x0-x18 and the link register. x19-x29 are its to preserve.
    .macro  save_caller_saved
    stp     x0, x1, [sp, #-160]!
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x30, [sp, #144]
    .endm

    .macro  restore_and_return
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x30, [sp, #144]
    ldp     x0, x1, [sp], #160
    eret
    .endm

    // An image that was built with SIMD registers has them in the handler too: all 32, and the
    // status, since only the lower halves of v8-v15 are the callee's to preserve.
    .macro  all_simd operation
    \operation q0, q1, [sp, #16]
    \operation q2, q3, [sp, #48]
    \operation q4, q5, [sp, #80]
    \operation q6, q7, [sp, #112]
    \operation q8, q9, [sp, #144]
    \operation q10, q11, [sp, #176]
    \operation q12, q13, [sp, #208]
    \operation q14, q15, [sp, #240]
    \operation q16, q17, [sp, #272]
    \operation q18, q19, [sp, #304]
    \operation q20, q21, [sp, #336]
    \operation q22, q23, [sp, #368]
    \operation q24, q25, [sp, #400]
    \operation q26, q27, [sp, #432]
    \operation q28, q29, [sp, #464]
    \operation q30, q31, [sp, #496]
    .endm

    .macro  save_simd
    sub     sp, sp, #528
    all_simd stp
    mrs     x1, fpsr
    mrs     x2, fpcr
    stp     x1, x2, [sp]
    .endm

    .macro  restore_simd
    ldp     x1, x2, [sp]
    msr     fpsr, x1
    msr     fpcr, x2
    all_simd ldp
    add     sp, sp, #528
    .endm

    // w0: the interrupt's number as the controller gave it; x0 may be clobbered.
    .macro  dispatch intid_mask, suffix
    .if     {simd}
    b       irq_simd_\suffix
    .else
    .if     \intid_mask
    tst     w0, #\intid_mask
    b.ne    irq_other_\suffix
    .else
    cbnz    w0, irq_other_\suffix
    .endif
    bl      {ipi}
irq_return_\suffix:
    restore_and_return
    .endif
    .endm

    // Out of the vector's slot: the timer, spurious interrupts; and everything, with SIMD.
    .macro  out_of_line intid_mask, suffix
    .if     {simd}
irq_simd_\suffix:
    save_simd
    .if     \intid_mask
    and     w0, w0, #\intid_mask
    .endif
    cbnz    w0, 1f
    bl      {ipi}
    b       2f
1:  mrs     x1, elr_el1
    bl      {other}
2:  restore_simd
    restore_and_return
    .else
irq_other_\suffix:
    .if     \intid_mask
    and     w0, w0, #\intid_mask
    .endif
    mrs     x1, elr_el1
    bl      {other}
    b       irq_return_\suffix
    .endif
    .endm

    // GICv3: the CPU interface is system registers. The dsb makes the acknowledgement complete
    // before the drain's first load; without it, a load may be early and miss the work of an IPI
    // that this read has just swallowed.
    .macro  irq_registers
    save_caller_saved
    mrs     x0, S3_0_C12_C12_0      // ICC_IAR1_EL1
    dsb     sy
    msr     S3_0_C12_C12_1, x0      // ICC_EOIR1_EL1: priority drop and deactivation
    dispatch 0, registers
    .endm

    // GICv2: the CPU interface is memory. The number carries the sender in bits 12:10, and the end
    // of interrupt must be told the same. The dmb keeps the drain's loads behind the acknowledgement.
    .macro  irq_memory
    save_caller_saved
    adrp    x1, {gicc}
    ldr     x1, [x1, :lo12:{gicc}]
    ldr     w0, [x1, #0x0c]         // GICC_IAR
    dmb     ishld
    str     w0, [x1, #0x10]         // GICC_EOIR
    dispatch 0x3ff, memory
    .endm

    .macro  slot number
    .balign 128
    msr     tpidr_el0, x0           // nobody else uses it; the stack may be what is broken
    mov     x0, #\number
    b       fatal
    .endm

    // 0-3 from EL1 on SP_EL0, 4-7 from EL1 on SP_EL1, 8-15 from EL0: synchronous, IRQ, FIQ, SError.
    .macro  vector_table irq
    .irp    number, 0,1,2,3,4
    slot    \number
    .endr
    .balign 128
    \irq
    .irp    number, 6,7,8,9,10,11,12,13,14,15
    slot    \number
    .endr
    .endm

    .section .text.vectors, "ax"
    .balign 2048
    .global smpcall_vectors_registers
smpcall_vectors_registers:
    vector_table irq_registers
    .balign 2048
    .global smpcall_vectors_memory
smpcall_vectors_memory:
    vector_table irq_memory
    out_of_line 0, registers
    out_of_line 0x3ff, memory

// x0: the vector's number. The report runs on a stack of its own, which the first CPU to come takes
// for good: the machine ends there.
fatal:
    mov     x4, sp
    adrp    x5, fault_stack_taken
    add     x5, x5, :lo12:fault_stack_taken
    mov     w7, #1
0:  ldaxr   w6, [x5]
    cbnz    w6, 1f
    stxr    w6, w7, [x5]
    cbnz    w6, 0b
    adrp    x5, fault_stack_top
    add     x5, x5, :lo12:fault_stack_top
    mov     sp, x5
1:  mrs     x1, esr_el1             // a second fault goes on with the stack that it has
    mrs     x2, elr_el1
    mrs     x3, far_el1
    b       {fault}

    .section .bss.fault, "aw", @nobits
    .balign 16
fault_stack:
    .space  8192
fault_stack_top:
fault_stack_taken:
    .space  4
