// The first instructions of the boot CPU and of every CPU that PSCI starts.
//
// Who jumps here: QEMU's loader or a boot loader, with the MMU off. As a flat Image, x0 is the device
// tree's address; as an ELF, x0 is 0 and QEMU has put the tree at the start of RAM. PSCI enters at
// smpcall_secondary_start with the logical id in x0. Both may arrive at EL2, and leave for EL1.
//
// Until the MMU is on, memory is Device memory to this CPU and not coherent with the others: nothing
// here reads a variable before that, only registers and constants.
//
// No braces outside of operands: this text goes through global_asm!'s format string.

    .section .text.boot, "ax"
    .global _start
_start:
    // The header of Linux's arm64 Image: with it, objcopy -O binary makes a file that any boot
    // loader for Linux can load, and a loader then passes the device tree in x0.
    b       0f
    nop
    .quad   {text_offset}           // where the image wants to lie, from the start of RAM
    .quad   __image_size            // its size in memory
    .quad   0b0010                  // flags: little-endian, 4 KiB pages, near the start of RAM
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

0:  msr     daifset, #0xf
    mov     x20, x0                 // the device tree, or 0
    bl      enter_el1
    adr     x1, _start              // the image is linked to one address; elsewhere every
    ldr     x2, =_start             // absolute address in it would be wrong
    cmp     x1, x2
    b.ne    unsupported
    bl      enable_mmu
    adrp    x1, __bss_start         // after the MMU: stores here must land in the cache
    add     x1, x1, :lo12:__bss_start
    adrp    x2, __bss_end
    add     x2, x2, :lo12:__bss_end
1:  cmp     x1, x2
    b.hs    2f
    stp     xzr, xzr, [x1], #16
    b       1b
2:  msr     tpidr_el1, xzr          // logical id 0, so that a fault can name the CPU
    adrp    x1, smpcall_stacks      // the window on the stacks is not mapped yet: main sees to it
    add     x1, x1, #{stack_size}
    mov     sp, x1
    mov     x29, xzr
    mov     x0, x20
    bl      {main}
    b       unsupported             // not reached: it does not return

    .global smpcall_secondary_start
smpcall_secondary_start:
    msr     daifset, #0xf
    mov     x20, x0
    bl      enter_el1
    bl      enable_mmu
    msr     tpidr_el1, x20          // so that a fault can name the CPU
    add     x0, x20, #1             // the top of its stack, in the window
    mov     x1, #{slot}
    ldr     x2, ={window}
    madd    x1, x0, x1, x2
    mov     sp, x1
    mov     x29, xzr
    mov     x0, x20
    bl      {secondary}
    b       unsupported             // not reached

// The boot CPU: x0 is added to sp, which then means the same memory through the window; on to x1.
    .global smpcall_move_stack
smpcall_move_stack:
    add     sp, sp, x0
    mov     x29, xzr
    br      x1

// Returns to x30 at EL1, from EL1 or EL2. Uses x9 and x10.
enter_el1:
    mrs     x9, CurrentEL
    cmp     x9, #(1 << 2)
    b.eq    2f
    cmp     x9, #(2 << 2)
    b.ne    unsupported             // EL3: there is no firmware, so no PSCI either
    mov     x9, #(1 << 31)          // HCR_EL2.RW: EL1 is AArch64, and nothing is trapped
    msr     hcr_el2, x9
    mov     x9, #3                  // EL1 may read the physical counter and timer
    msr     cnthctl_el2, x9
    msr     cntvoff_el2, xzr
    mov     x9, #0x33ff             // no trap of FP; RES1 bits
    msr     cptr_el2, x9
    msr     hstr_el2, xzr
    mrs     x9, midr_el1
    msr     vpidr_el2, x9
    mrs     x9, mpidr_el1
    msr     vmpidr_el2, x9
    mrs     x9, id_aa64dfr0_el1     // PMUVer: 0 is none, 15 is one that is not architected
    ubfx    x9, x9, #8, #4
    add     x9, x9, #1
    tst     x9, #0xe
    mov     x10, xzr
    b.eq    0f
    mrs     x10, pmcr_el0           // all counters belong to EL1: MDCR_EL2.HPMN = PMCR_EL0.N
    ubfx    x10, x10, #11, #5
0:  msr     mdcr_el2, x10
    mrs     x9, id_aa64pfr0_el1     // GIC: are its CPU interface's registers there?
    ubfx    x9, x9, #24, #4
    cbz     x9, 1f
    mrs     x9, S3_4_C12_C9_5       // ICC_SRE_EL2
    orr     x9, x9, #1              // SRE: registers instead of MMIO
    orr     x9, x9, #8              // Enable: EL1 may choose so too
    msr     S3_4_C12_C9_5, x9
    isb
    msr     S3_4_C12_C11_0, xzr     // ICH_HCR_EL2: no virtual interrupts
1:  mov     x9, #0x3c5              // EL1h, all interrupts masked
    msr     spsr_el2, x9
    msr     elr_el2, x30
    mov     x9, #0x0800             // SCTLR_EL1: RES1 bits, MMU off
    movk    x9, #0x30d0, lsl #16
    msr     sctlr_el1, x9
    isb
    eret
2:  msr     spsel, #1
    ret

// MMU and caches on, with the identity map of boot.rs. Uses x9 and x10.
enable_mmu:
    adrp    x9, {page_table}
    msr     ttbr0_el1, x9
    ldr     x9, ={mair}
    msr     mair_el1, x9
    ldr     x9, ={tcr}
    mrs     x10, id_aa64mmfr0_el1   // PARange: as many physical address bits as there are,
    and     x10, x10, #0xf
    cmp     x10, #5                 // but at most 48, which 4 KiB descriptors without LPA2 hold
    mov     w11, #5
    csel    x10, x10, x11, lo
    bfi     x9, x10, #32, #3
    msr     tcr_el1, x9
    mov     x9, #{cpacr}
    msr     cpacr_el1, x9
    dsb     ish                     // the table's entries before the walker
    isb
    tlbi    vmalle1
    dsb     nsh
    ic      iallu
    dsb     nsh
    isb
    ldr     x9, ={sctlr}
    msr     sctlr_el1, x9
    isb
    ret

// Nothing is known of the machine, not even its console: ask the debugger or QEMU to print this.
unsupported:
    mov     w0, #4                  // SYS_WRITE0
    adr     x1, 0f
    hlt     #0xf000
    mov     w0, #0x20               // SYS_EXIT_EXTENDED
    adr     x1, 1f
    hlt     #0xf000
2:  wfi
    b       2b
    .balign 8
1:  .quad   0x20026, 1              // ADP_Stopped_ApplicationExit, code 1
0:  .asciz  "smpcall: entered at EL3, or not at the address that the image is linked to\n"
    .balign 4
    .ltorg

    .section .bss.stacks, "aw", @nobits
    .balign 4096
    .global smpcall_stacks
smpcall_stacks:
    .space  {stack_size} * {max_cpus}
