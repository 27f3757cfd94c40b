//! Derive macros of Doorbell, re-exported by the `doorbell` crate under the names of the traits they implement.
//!
//! Each macro reads one attribute into a plain value (`message.rs`, `payload.rs`) and writes one short `impl` from it. There is no
//! other logic in generated code: it calls functions of `doorbell` that can be read and tested on their own.
#![forbid(unsafe_code)]

mod message;
mod payload;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `Message` (and `Upload`): the number of a message and what answers it.
///
/// `#[message(type = …)]` takes the number, any constant expression of type `u32`. `reply = …` names the type of the answer, or
/// of one item of a streamed answer; without it the answer is `()`. `item = …` names the type of one item from the client and
/// implements `Upload` too. The type also has to be a `Payload`, most simply by serde's traits.
///
/// ```
/// use doorbell::{Message, MessageType, Upload};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Message)]
/// #[message(type = 7, reply = String)]
/// struct Complete {
///     prefix: String,
/// }
///
/// #[derive(Serialize, Deserialize, Message)]
/// #[message(type = 8, reply = u64, item = Vec<u8>)]
/// struct Store {
///     path: String,
/// }
///
/// assert_eq!(Complete::TYPE, MessageType::new(7));
/// let first_item: <Store as Upload>::Item = vec![1, 2, 3];
/// ```
///
/// The number is not optional, because both programs have to agree on it:
///
/// ```compile_fail
/// # use doorbell::Message;
/// #[derive(serde::Serialize, serde::Deserialize, Message)]
/// #[message(reply = String)]
/// struct Complete;
/// ```
#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    message::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Implements `Payload` for a type that shall not travel by way of serde and postcard.
///
/// `#[payload(rkyv)]` encodes with rkyv, whose three traits the type has to derive; needs the feature `rkyv` of `doorbell`. What
/// arrives is validated before it is read. Shared pointers (`Rc`, `Arc`) are not supported.
///
/// ```
/// use doorbell::Payload;
///
/// #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Payload)]
/// #[payload(rkyv)]
/// struct Completion {
///     text: String,
///     scores: Vec<f32>,
/// }
/// ```
///
/// `#[payload(bytes)]` is for a struct with one field of type `bytes::Bytes`, which is sent and received as it is.
///
/// ```
/// use bytes::Bytes;
/// use doorbell::Payload;
///
/// #[derive(Payload)]
/// #[payload(bytes)]
/// struct Page(Bytes);
///
/// assert_eq!(Page(Bytes::from_static(b"x")).as_bytes().unwrap(), "x");
/// ```
///
/// `#[payload(loaned)]` is for a struct with one field of type `doorbell::Loaned`, or `doorbell::LoanedArchive` for a value in rkyv's
/// form, which is sent without a copy.
///
/// ```
/// use doorbell::{Loaned, Payload};
///
/// #[derive(Payload)]
/// #[payload(loaned)]
/// struct Picture(Loaned);
/// ```
///
/// A type with serde's traits is a `Payload` already and cannot derive it again:
///
/// ```compile_fail
/// # use doorbell::Payload;
/// #[derive(serde::Serialize, serde::Deserialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Payload)]
/// #[payload(rkyv)]
/// struct Completion;
/// ```
#[proc_macro_derive(Payload, attributes(payload))]
pub fn derive_payload(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    payload::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
