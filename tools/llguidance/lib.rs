//! llguidance's own C functions, and which version of them this is.

pub use llguidance::ffi::*;

/// "1.9.1", with a NUL: static.
#[no_mangle]
pub extern "C" fn fastvlm_grammar_version() -> *const std::ffi::c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
