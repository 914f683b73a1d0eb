// The first instructions of every CPU.
//
// The boot CPU arrives at `pvh_entry` in 32-bit protected mode without paging, interrupts off, the
// address of hvm_start_info in EBX (the PVH ABI). A secondary arrives at the copy of `trampoline`
// at {trampoline} in real mode. Both enter long mode with the same macro and the same page tables.
// Nothing here clears .bss: the loader of the ELF image did.

    .macro enter_long_mode target
    mov     $0x20, %eax             // CR4: PAE and nothing else; SSE stays an invalid opcode
    mov     %eax, %cr4
    mov     $pml4, %eax
    mov     %eax, %cr3
    mov     $0xc0000080, %ecx       // EFER.LME
    rdmsr
    or      $0x100, %eax
    wrmsr
    mov     $0x80010033, %eax       // CR0: PG, WP, NE, ET, MP, PE; clears CD and NW of INIT
    mov     %eax, %cr0
    ljmpl   $8, $\target
    .endm

// Data segments, the GS base and the stack of the CPU whose logical id is in EBP.
    .macro become_cpu
    xor     %eax, %eax
    mov     %eax, %fs
    mov     %eax, %gs
    mov     $16, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    lea     {cpu_ids}(,%rbp,4), %rax
    xor     %edx, %edx              // the image is below 4 GiB
    mov     $0xc0000101, %ecx       // IA32_GS_BASE
    wrmsr
    imul    ${slot}, %rbp, %rax
    lea     {stacks} + {slot}(%rax), %rsp
    .endm

    // XEN_ELFNOTE_PHYS32_ENTRY is how the loader finds the entry and knows that this is PVH.
    .section .note.pvh, "a", @note
    .balign 4
    .long   4, 8, 18
    .asciz  "Xen"
    .quad   pvh_entry

    .section .text.boot, "ax"
    .code32
    .global pvh_entry
pvh_entry:
    cli
    cld
    // 2048 pages of 2 MiB; the last GiB, where the APICs are, uncached (PCD, PWT).
    xor     %ecx, %ecx
1:  mov     %ecx, %eax
    shl     $21, %eax
    or      $0x83, %eax             // present, writable, page
    cmp     $1536, %ecx
    jb      2f
    or      $0x18, %eax
2:  mov     %eax, page_directories(,%ecx,8)
    inc     %ecx
    cmp     $2048, %ecx
    jne     1b
    movl    $page_directories + 0x0003, pdpt
    movl    $page_directories + 0x1003, pdpt + 8
    movl    $page_directories + 0x2003, pdpt + 16
    movl    $page_directories + 0x3003, pdpt + 24
    movl    $page_directories + 0x3003, pdpt + 8 * 511   // the last GiB again, at the very top
    movl    $pdpt + 3, pml4
    movl    $pdpt + 3, pml4 + 8 * 511
    lgdt    gdt_pointer
    enter_long_mode boot64

    .code64
boot64:
    xor     %ebp, %ebp
    become_cpu
    mov     %ebx, %edi              // hvm_start_info, zero-extended
    call    {boot_main}

// A secondary: finds its logical id by its own APIC id, so that no argument can reach the wrong
// CPU, then claims its start request. Whoever nobody asked for sleeps without touching memory.
secondary64:
    xor     %eax, %eax
    cpuid
    cmp     $0xb, %eax
    jb      1f
    mov     $0xb, %eax              // the x2APIC id, whatever mode the APIC is in
    xor     %ecx, %ecx
    cpuid
    test    %ebx, %ebx
    jnz     2f
1:  mov     $1, %eax
    cpuid
    mov     %ebx, %edx
    shr     $24, %edx
2:  mov     {apic_ids_count}, %ebp
3:  dec     %ebp
    js      5f
    cmp     %edx, {apic_ids}(,%rbp,4)
    jne     3b
    mov     ${requested}, %al
    mov     ${running}, %cl
    lock cmpxchg %cl, {states}(%rbp)
    jne     5f
    become_cpu
    mov     %ebp, %edi
    call    {secondary_main}
5:  cli
    hlt
    jmp     5b

// Copied to {trampoline}; a start-up IPI enters it with CS:IP = {trampoline}/16:0.
    .section .rodata.trampoline, "a"
    .code16
    .global trampoline, trampoline_end
trampoline:
    cli
    cld
    mov     %cs, %ax
    mov     %ax, %ds
    lgdtl   trampoline_gdt_pointer - trampoline
    enter_long_mode secondary64
    .balign 4
trampoline_gdt_pointer:
    .word   {gdt_limit}
    .long   {gdt}
trampoline_end:

    .section .rodata.gdt_pointer, "a"
    .balign 4
gdt_pointer:
    .word   {gdt_limit}
    .long   {gdt}

    .section .bss.page_tables, "aw", @nobits
    .balign 4096
    .global page_directories
pml4:
    .skip   4096
pdpt:
    .skip   4096
page_directories:
    .skip   4 * 4096

    .code64
    .text
