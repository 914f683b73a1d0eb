/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What callers of smp.c use of the rest of the kernel, as far as calls between CPUs need it:
 * error numbers, allocation flags, preemption, interrupts, and variables of each CPU.
 *
 * Every name but gfp_t yields to a definition that is there already.
 */
#ifndef SMPCALL_KERNEL_H
#define SMPCALL_KERNEL_H

#if defined(__STDC_HOSTED__) && __STDC_HOSTED__
#include <errno.h>
#else
#ifndef EIO
#define EIO 5
#endif
#ifndef ENXIO
#define ENXIO 6
#endif
#ifndef EBUSY
#define EBUSY 16
#endif
#ifndef EINVAL
#define EINVAL 22
#endif
#ifndef ENOSPC
#define ENOSPC 28
#endif
#ifndef EDEADLK
#define EDEADLK 35
#endif
#ifndef ETIMEDOUT
#define ETIMEDOUT 110
#endif
#endif

/* No call allocates, so these say nothing here. */
typedef unsigned int gfp_t;
#ifndef __GFP_WAIT
#define __GFP_WAIT 0x10u
#endif
#ifndef __GFP_NOWARN
#define __GFP_NOWARN 0x200u
#endif
#ifndef GFP_ATOMIC
#define GFP_ATOMIC 0x20u
#endif
#ifndef GFP_NOWAIT
#define GFP_NOWAIT 0u
#endif
#ifndef GFP_KERNEL
#define GFP_KERNEL 0xd0u
#endif

/* A CPU's thread is pinned, and C kernels give their own in the table: nothing to count here. */
#ifndef preempt_disable
#define preempt_disable() ((void)0)
#endif
#ifndef preempt_enable
#define preempt_enable() ((void)0)
#endif
#ifndef get_cpu
#define get_cpu() smp_processor_id()
#endif
#ifndef put_cpu
#define put_cpu() ((void)0)
#endif

#ifndef local_irq_save
#define local_irq_save(flags) ((void)((flags) = smpcall_irq_save()))
#endif
#ifndef local_irq_restore
#define local_irq_restore(flags) smpcall_irq_restore(flags)
#endif
#ifndef local_irq_disable
#define local_irq_disable() ((void)smpcall_irq_save())
#endif
#ifndef local_irq_enable
#define local_irq_enable() smpcall_irq_restore(1)
#endif
#ifndef irqs_disabled
#define irqs_disabled() smpcall_irqs_disabled()
#endif
#ifndef cpu_relax
#define cpu_relax() smpcall_relax()
#endif

/* A variable of each CPU is an array. */
#ifndef DEFINE_PER_CPU
#define DEFINE_PER_CPU(type, name) type name[NR_CPUS]
#define DECLARE_PER_CPU(type, name) extern type name[NR_CPUS]
#define per_cpu(name, cpu) ((name)[(cpu)])
#define __get_cpu_var(name) ((name)[smp_processor_id()])
#endif

#endif /* SMPCALL_KERNEL_H */
