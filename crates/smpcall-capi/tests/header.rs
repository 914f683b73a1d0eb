//! The header, which is written by hand, against what Rust exports (docs/adr/0010).
//!
//! Each exported function and variable of the sources is declared once more, as Rust has it, after
//! the header: a C compiler refuses two declarations that differ. The header's names must be the
//! exported ones, no more and no fewer; and so must be the symbols of the library itself.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use syn::{Attribute, FnArg, ForeignItem, Item, ReturnType, Type};

#[path = "support/cc.rs"]
mod cc;

use cc::{C99, CXX17, home};

/// The exported items of one set of sources: their names, and their declarations in C.
type Exports = BTreeMap<String, String>;

/// Rust's types as C has them. A type that is not here is not for the interface.
const TYPES: &[(&str, &str)] = &[
    ("c_int", "int"),
    ("i32", "int"),
    ("c_uint", "unsigned int"),
    ("u32", "unsigned int"),
    ("c_ulong", "unsigned long"),
    ("bool", "bool"),
    ("* mut c_void", "void *"),
    ("* const c_char", "const char *"),
    ("* mut c_char", "char *"),
    ("* const RawMask", "const struct cpumask *"),
    ("* mut RawMask", "struct cpumask *"),
    ("* mut CallSingleData", "struct call_single_data *"),
    ("* const RawPlatform", "const struct smpcall_platform *"),
    (
        "* const RawCallbacks",
        "const struct smpcall_cpu_callbacks *",
    ),
    ("u64", "uint64_t"),
    ("Option < SmpCallFunc >", "smp_call_func_t"),
    ("Option < CondFunc >", "bool (*)(int, void *)"),
    ("Option < OnCpuFunc >", "int (*)(void *)"),
    ("& RawMask", "const struct cpumask *const"),
    ("AtomicI32", "int"),
    ("AtomicU32", "unsigned int"),
];

/// A type as C writes it.
fn c_type(rust: &Type) -> &'static str {
    let text = tokens(rust);
    let found = TYPES.iter().find(|(name, _)| *name == text);
    found.unwrap_or_else(|| panic!("no C type for `{text}`")).1
}

/// A type's tokens with a blank between.
fn tokens(rust: &Type) -> String {
    match rust {
        Type::Ptr(pointer) => {
            let kind = if pointer.const_token.is_some() {
                "const"
            } else {
                "mut"
            };
            format!("* {kind} {}", tokens(&pointer.elem))
        }
        Type::Reference(reference) => format!("& {}", tokens(&reference.elem)),
        Type::Path(path) => {
            let last = path.path.segments.last().expect("a path has a segment");
            match &last.arguments {
                syn::PathArguments::AngleBracketed(arguments) => {
                    let inner = arguments.args.iter().map(|argument| match argument {
                        syn::GenericArgument::Type(inner) => tokens(inner),
                        _ => panic!("not for C: an argument of {}", last.ident),
                    });
                    format!(
                        "{} < {} >",
                        last.ident,
                        inner.collect::<Vec<_>>().join(" , ")
                    )
                }
                _ => last.ident.to_string(),
            }
        }
        _ => panic!("not for C: a type of the interface"),
    }
}

/// Is it exported under its own name?
fn is_exported(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else {
            return false;
        };
        list.path.is_ident("unsafe") && list.tokens.to_string() == "no_mangle"
    })
}

/// The source of the instance of a C kernel, which has exports of its own.
const KERNEL: &str = "kernel.rs";

/// The items of one of our sources.
fn items(source: &Path) -> Vec<Item> {
    let text = fs::read_to_string(source).expect("a source");
    syn::parse_file(&text).expect("it parses").items
}

/// The exported items of the library for Linux.
fn exports() -> Exports {
    let sources = fs::read_dir(home().join("src")).expect("sources").flatten();
    sources
        .filter(|entry| entry.file_name() != KERNEL)
        .flat_map(|entry| items(&entry.path()))
        .filter_map(|item| declaration(&item))
        .collect()
}

/// The exported items that only a C kernel's library has.
fn kernel_exports() -> Exports {
    let items = items(&home().join("src").join(KERNEL));
    items.iter().filter_map(declaration).collect()
}

/// Rust's view of a struct of callbacks, as a C struct with another name, and checks that the two
/// have the same members in the same places.
fn same_struct(source: &str, rust: &str, c: &str) -> String {
    let items = items(&home().join("src").join(source));
    let found = items.iter().find_map(|item| match item {
        Item::Struct(table) if table.ident == rust => Some(table),
        _ => None,
    });
    let fields = &found.expect("the struct is there").fields;
    let mut members = String::new();
    let mut checks = String::new();
    for field in fields {
        let name = field.ident.as_ref().expect("it has a name");
        members.push_str(&format!("{};\n", callback(&name.to_string(), &field.ty)));
        // Assigned both ways, and in the same place.
        checks.push_str(&format!(
            "theirs->{name} = ours->{name}; ours->{name} = theirs->{name};\n\
             {{ SAME(same, offsetof(struct our_{c}, {name}), offsetof(struct {c}, {name})); \
             same unused; (void)unused; }}\n"
        ));
    }
    format!(
        "struct our_{c} {{\n{members}}};\n\
         SAME(size_of_{c}, sizeof(struct our_{c}), sizeof(struct {c}));\n\
         void check_{c}(struct our_{c} *ours, struct {c} *theirs);\n\
         void check_{c}(struct our_{c} *ours, struct {c} *theirs)\n{{\n{checks}}}\n"
    )
}

/// A callback's declaration in C.
fn callback(name: &str, rust: &Type) -> String {
    let Type::Path(path) = rust else {
        panic!("{name} is no option");
    };
    let option = path.path.segments.last().expect("a path has a segment");
    let syn::PathArguments::AngleBracketed(inner) = &option.arguments else {
        panic!("{name} is no option");
    };
    let Some(syn::GenericArgument::Type(Type::BareFn(function))) = inner.args.first() else {
        panic!("{name} is no function");
    };
    let arguments: Vec<_> = function
        .inputs
        .iter()
        .map(|argument| c_type(&argument.ty))
        .collect();
    let arguments = if arguments.is_empty() {
        "void".to_owned()
    } else {
        arguments.join(", ")
    };
    let returns = match &function.output {
        ReturnType::Default => "void",
        ReturnType::Type(_, returns) => c_type(returns),
    };
    format!("{returns} (*{name})({arguments})")
}

/// An exported item's name and its declaration in C.
fn declaration(item: &Item) -> Option<(String, String)> {
    match item {
        Item::Fn(function) if is_exported(&function.attrs) => {
            let name = function.sig.ident.to_string();
            let returns = match &function.sig.output {
                ReturnType::Default => "void",
                ReturnType::Type(_, never) if matches!(**never, Type::Never(_)) => "void",
                ReturnType::Type(_, returns) => c_type(returns),
            };
            let arguments = function.sig.inputs.iter().map(|argument| match argument {
                FnArg::Typed(argument) => c_type(&argument.ty),
                FnArg::Receiver(_) => panic!("{name} has a receiver"),
            });
            let mut arguments: Vec<_> = arguments.collect();
            if arguments.is_empty() {
                arguments.push("void");
            }
            let arguments = arguments.join(", ");
            Some((name.clone(), format!("{returns} {name}({arguments});")))
        }
        Item::Static(variable) if is_exported(&variable.attrs) => {
            let name = variable.ident.to_string();
            let declaration = format!("extern {} {name};", c_type(&variable.ty));
            Some((name, declaration))
        }
        Item::ForeignMod(foreign) => {
            let named = foreign.items.iter().any(
                |item| matches!(item, ForeignItem::Fn(function) if is_exported(&function.attrs)),
            );
            assert!(!named, "imports are not exports");
            None
        }
        _ => None,
    }
}

/// A header without comments, preprocessor lines and the bodies of inline functions.
fn bare(text: &str) -> String {
    let mut without_comments = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("/*") {
        without_comments.push_str(before);
        rest = after.split_once("*/").expect("comments end").1;
    }
    without_comments.push_str(rest);
    let mut in_macro = false;
    let mut lines = String::new();
    for line in without_comments.lines() {
        let directive = in_macro || line.trim_start().starts_with('#');
        in_macro = directive && line.ends_with('\\');
        if !directive && !line.starts_with("extern \"C\"") {
            lines.push_str(line);
            lines.push('\n');
        }
    }
    let mut depth = 0_usize;
    let mut bare = String::new();
    for letter in lines.chars() {
        match letter {
            '{' => depth += 1,
            // The brace of `extern "C"` was on a line that is gone.
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    bare.push(';');
                }
            }
            _ if depth == 0 => bare.push(letter),
            _ => {}
        }
    }
    bare
}

/// The names that headers declare and do not define.
fn declared(headers: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for header in headers {
        let text = fs::read_to_string(home().join("include").join(header)).expect("a header");
        for statement in bare(&text).split(';') {
            let statement = statement.trim();
            let inline = statement.contains("static inline");
            let is_type = statement.starts_with("typedef") || statement.starts_with("struct ");
            if statement.is_empty() || inline || (is_type && !statement.contains('(')) {
                continue;
            }
            if statement.starts_with("typedef") || statement.starts_with("enum") {
                continue;
            }
            let head = statement.split('(').next().expect("there is a first part");
            let name = head.split(|c: char| !c.is_alphanumeric() && c != '_');
            names.extend(name.rev().find(|word| !word.is_empty()).map(str::to_owned));
        }
    }
    names
}

const HOSTED_HEADERS: &[&str] = &["smpcall.h", "smpcall/cpumask.h", "smpcall/kernel.h"];

/// What the header says of the types that Rust's own file checks for itself.
const LAYOUT: &str = "
#define SAME(name, left, right) typedef char name[(left) == (right) ? 1 : -1]
SAME(mask_size, sizeof(struct cpumask), 128);
SAME(cpus, NR_CPUS, 1024);
SAME(csd_size, sizeof(struct call_single_data), 80);
SAME(csd_func, offsetof(struct call_single_data, func), 0);
SAME(csd_info, offsetof(struct call_single_data, info), 8);
SAME(csd_flags, offsetof(struct call_single_data, flags), 16);
SAME(csd_priv, offsetof(struct call_single_data, priv), 24);
SAME(csd_lock, CSD_FLAG_LOCK, 1);
SAME(gfp, sizeof(gfp_t), sizeof(unsigned int));
";

/// Compiles the header and what Rust declares, one after the other.
fn compile_twice(name: &str, exports: &Exports, more: &str) {
    let declarations: Vec<_> = exports.values().map(String::as_str).collect();
    let declarations = declarations.join("\n");
    let text = format!(
        "#include \"smpcall.h\"\n#include <stddef.h>\n#ifdef __cplusplus\nextern \"C\" {{\n\
         #endif\n{declarations}\n#ifdef __cplusplus\n}}\n#endif\n{LAYOUT}\n{more}\n\
         int main(void) {{ return 0; }}\n"
    );
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.c"));
    fs::write(&path, text).expect("a scratch file");
    let path = path.to_str().expect("a path in UTF-8");
    cc::c_program(&format!("{name}-c"), &[C99], &[path]);
    cc::cxx_program(&format!("{name}-cxx"), &[CXX17, &["-x", "c++"]], &[path]);
}

#[test]
fn the_header_and_the_exports_have_the_same_types() {
    let exports = exports();
    assert!(exports.len() > 40, "they were found: {}", exports.len());
    let callbacks = same_struct("callbacks.rs", "RawCallbacks", "smpcall_cpu_callbacks");
    compile_twice("prototypes", &exports, &callbacks);
}

#[test]
fn the_platform_header_and_its_exports_have_the_same_types() {
    let mut declarations = kernel_exports();
    // Before them, for their prototypes name the table.
    let include = "#include \"smpcall/platform.h\"".to_owned();
    declarations.insert(String::new(), include);
    let table = same_struct("table.rs", "RawPlatform", "smpcall_platform");
    compile_twice("platform", &declarations, &table);
}

#[test]
fn the_headers_declare_what_is_exported_and_no_more() {
    let exported: BTreeSet<String> = exports().into_keys().collect();
    assert_eq!(declared(HOSTED_HEADERS), exported);
    let exported: BTreeSet<String> = kernel_exports().into_keys().collect();
    assert_eq!(declared(&["smpcall/platform.h"]), exported);
}

#[test]
fn the_seed_s_prototypes_are_in_the_header_to_the_letter() {
    let header = fs::read_to_string(home().join("include/smpcall.h")).expect("the header");
    let header = bare(&header)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    for prototype in [
        "int smp_call_function_single(int cpu, smp_call_func_t func, void *info, int wait)",
        "int smp_call_function_any(const struct cpumask *mask, smp_call_func_t func, void *info, int wait)",
        "void __smp_call_function_single(int cpu, struct call_single_data *csd, int wait)",
        "void smp_call_function_many(const struct cpumask *mask, smp_call_func_t func, void *info, bool wait)",
        "int smp_call_function(smp_call_func_t func, void *info, int wait)",
        "int on_each_cpu(void (*func)(void *info), void *info, int wait)",
        "void on_each_cpu_mask(const struct cpumask *mask, smp_call_func_t func, void *info, bool wait)",
        "void on_each_cpu_cond(bool (*cond_func)(int cpu, void *info), smp_call_func_t func, void *info, bool wait, gfp_t gfp_flags)",
        "void kick_all_cpus_sync(void)",
        "void generic_smp_call_function_single_interrupt(void)",
        "void call_function_init(void)",
        "void setup_nr_cpu_ids(void)",
        "void smp_init(void)",
        "extern int nr_cpu_ids",
        "extern unsigned int setup_max_cpus",
    ] {
        assert!(header.contains(&format!("{prototype};")), "{prototype}");
    }
}

/// What the library's own objects define under a name that is not mangled.
fn symbols(library: &Path) -> BTreeSet<String> {
    let output = cc::output(
        Command::new("nm")
            .args(["-g", "--defined-only"])
            .arg(library),
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !text.is_empty(),
        "nm: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut ours = false;
    let mut symbols = BTreeSet::new();
    for line in text.lines() {
        if let Some(member) = line.strip_suffix(':') {
            ours = ["smpcall_capi-", "smpcall-", "smpcall_hosted-"]
                .iter()
                .any(|crate_name| member.starts_with(crate_name));
            continue;
        }
        // A weak one (kind V or W) yields to others, so it takes no name away.
        let words: Vec<_> = line.split_whitespace().collect();
        let &[_, "T" | "D" | "B" | "R", name] = words.as_slice() else {
            continue;
        };
        let mangled = name.starts_with("_ZN") || name.starts_with("_R");
        if ours && !mangled {
            symbols.insert(name.to_owned());
        }
    }
    symbols
}

#[test]
fn the_library_defines_the_promised_symbols_and_no_others() {
    let library = cc::library_dir().join("libsmpcall_capi.a");
    let exported: BTreeSet<String> = exports().into_keys().collect();
    assert_eq!(symbols(&library), exported);
}
