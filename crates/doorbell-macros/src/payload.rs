//! `#[derive(Payload)]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, Generics, Member, Result, parse_quote};

/// Returns the implementation that the attribute of `input` asks for.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let mut all_generics = input.generics.clone();
    let methods = match Encoding::of(input)? {
        Encoding::Rkyv => rkyv(input, &mut all_generics),
        Encoding::Bytes => bytes(input)?,
        Encoding::Loaned => loaned(input)?,
    };
    let name = &input.ident;
    let (generics, arguments, conditions) = all_generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #generics ::doorbell::Payload for #name #arguments #conditions {
            #methods
        }
    })
}

/// What `#[payload(…)]` says.
#[derive(Clone, Copy)]
enum Encoding {
    Rkyv,
    Bytes,
    Loaned,
}

impl Encoding {
    fn of(input: &DeriveInput) -> Result<Self> {
        let mut found = None;
        let attributes = || {
            input
                .attrs
                .iter()
                .filter(|attribute| attribute.path().is_ident("payload"))
        };
        for attribute in attributes() {
            attribute.parse_nested_meta(|meta| Self::read(&mut found, &meta))?;
        }
        let place = attributes()
            .next()
            .map_or_else(Span::call_site, Spanned::span);
        found.ok_or_else(|| {
            Error::new(
                place,
                "the encoding is missing: `#[payload(rkyv)]`, `#[payload(bytes)]` or `#[payload(loaned)]`",
            )
        })
    }

    fn read(found: &mut Option<Self>, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let encoding = if meta.path.is_ident("rkyv") {
            Self::Rkyv
        } else if meta.path.is_ident("bytes") {
            Self::Bytes
        } else if meta.path.is_ident("loaned") {
            Self::Loaned
        } else {
            return Err(meta.error("unknown encoding; `rkyv`, `bytes` and `loaned` are known"));
        };
        match found.replace(encoding) {
            None => Ok(()),
            Some(_) => Err(meta.error("a payload has one encoding")),
        }
    }
}

fn rkyv(input: &DeriveInput, generics: &mut Generics) -> TokenStream {
    // The span of the name, so that missing traits of rkyv are reported at the type.
    let codec = quote_spanned!(input.ident.span()=> ::doorbell::__private::rkyv);
    // What the codec needs of a generic type is more than its author wants to write.
    let name = &input.ident;
    let (_, arguments, _) = input.generics.split_for_impl();
    let condition =
        parse_quote!(#name #arguments: #codec::RkyvPayload + ::core::marker::Send + 'static);
    generics.make_where_clause().predicates.push(condition);
    quote! {
        fn encode(
            &self,
            out: &mut ::std::vec::Vec<u8>,
        ) -> ::core::result::Result<(), ::doorbell::EncodeError> {
            #codec::encode::<Self>(self, out)
        }

        fn decode(
            bytes: ::doorbell::Incoming<'_>,
        ) -> ::core::result::Result<Self, ::doorbell::DecodeError> {
            #codec::decode::<Self>(bytes.as_slice())
        }
    }
}

fn loaned(input: &DeriveInput) -> Result<TokenStream> {
    let (member, field) = only_field(
        input,
        "`#[payload(loaned)]` needs a struct with one field of type `Loaned` or `LoanedArchive`",
    )?;
    let ty = &field.ty;
    // The span of the field's type, so that a type which is no `Loaned` and does not deref to one is reported there.
    let borrowed = quote_spanned!(ty.span()=> &self.#member);
    let payload = quote!(<#ty as ::doorbell::Payload>);
    Ok(quote! {
        fn encode(
            &self,
            out: &mut ::std::vec::Vec<u8>,
        ) -> ::core::result::Result<(), ::doorbell::EncodeError> {
            #payload::encode(&self.#member, out)
        }

        fn decode(
            bytes: ::doorbell::Incoming<'_>,
        ) -> ::core::result::Result<Self, ::doorbell::DecodeError> {
            #payload::decode(bytes).map(|loaned| Self { #member: loaned })
        }

        fn decode_loaned(
            loaned: ::doorbell::Loaned,
        ) -> ::core::result::Result<Self, ::doorbell::DecodeError> {
            #payload::decode_loaned(loaned).map(|loaned| Self { #member: loaned })
        }

        fn as_loaned(&self) -> ::core::option::Option<&::doorbell::Loaned> {
            ::core::option::Option::Some(#borrowed)
        }
    })
}

fn bytes(input: &DeriveInput) -> Result<TokenStream> {
    let (member, field) = only_field(
        input,
        "`#[payload(bytes)]` needs a struct with one field of type `bytes::Bytes`",
    )?;
    let ty = &field.ty;
    // The span of the field's type, so that another type than `Bytes` is reported there.
    let borrowed = quote_spanned!(ty.span()=> &self.#member);
    Ok(quote! {
        fn encode(
            &self,
            out: &mut ::std::vec::Vec<u8>,
        ) -> ::core::result::Result<(), ::doorbell::EncodeError> {
            let bytes: &::doorbell::__private::Bytes = #borrowed;
            out.extend_from_slice(bytes);
            ::core::result::Result::Ok(())
        }

        fn decode(
            bytes: ::doorbell::Incoming<'_>,
        ) -> ::core::result::Result<Self, ::doorbell::DecodeError> {
            ::core::result::Result::Ok(Self { #member: bytes.into_bytes() })
        }

        fn as_bytes(&self) -> ::core::option::Option<&::doorbell::__private::Bytes> {
            ::core::option::Option::Some(#borrowed)
        }
    })
}

fn only_field<'a>(input: &'a DeriveInput, needed: &str) -> Result<(Member, &'a Field)> {
    let refuse = || Error::new_spanned(&input.ident, needed);
    let Data::Struct(data) = &input.data else {
        return Err(refuse());
    };
    let mut fields = data.fields.iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Err(refuse());
    };
    let member = match &data.fields {
        Fields::Named(_) => field.ident.clone().map(Member::Named),
        Fields::Unnamed(_) | Fields::Unit => None,
    };
    Ok((member.unwrap_or(Member::from(0)), field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(input: &DeriveInput) -> String {
        expand(input).unwrap().to_string()
    }

    fn refused(input: &DeriveInput) -> String {
        expand(input).unwrap_err().to_string()
    }

    #[test]
    fn rkyv_calls_the_codec() {
        let code = expanded(&parse_quote!(
            #[payload(rkyv)]
            enum Shape {
                Dot,
                Line(u32),
            }
        ));
        assert!(
            code.contains("impl :: doorbell :: Payload for Shape"),
            "{code}"
        );
        assert!(
            code.contains(":: doorbell :: __private :: rkyv :: decode :: < Self >"),
            "{code}"
        );
        assert!(!code.contains("as_bytes"), "{code}");
    }

    #[test]
    fn rkyv_asks_for_the_traits_of_the_type_as_a_whole() {
        let code = expanded(&parse_quote!(
            #[payload(rkyv)]
            struct Pair<T: Clone>(T, T);
        ));
        let conditions = "impl < T : Clone > :: doorbell :: Payload for Pair < T > where Pair < T > : :: doorbell";
        assert!(code.contains(conditions), "{code}");
    }

    #[test]
    fn bytes_work_with_and_without_a_field_name() {
        let unnamed = expanded(&parse_quote!(
            #[payload(bytes)]
            struct Page(Bytes);
        ));
        assert!(
            unnamed.contains("Self { 0 : bytes . into_bytes () }"),
            "{unnamed}"
        );
        let named = expanded(&parse_quote!(
            #[payload(bytes)]
            struct Page {
                content: Bytes,
            }
        ));
        assert!(
            named.contains("Self { content : bytes . into_bytes () }"),
            "{named}"
        );
    }

    #[test]
    fn bytes_need_a_struct_with_one_field() {
        let inputs: [DeriveInput; 4] = [
            parse_quote!(
                #[payload(bytes)]
                struct Page;
            ),
            parse_quote!(
                #[payload(bytes)]
                struct Page(Bytes, u8);
            ),
            parse_quote!(
                #[payload(bytes)]
                enum Page {
                    One(Bytes),
                }
            ),
            parse_quote!(#[payload(bytes)] union Page { one: u8 }),
        ];
        for input in inputs {
            assert_eq!(
                refused(&input),
                "`#[payload(bytes)]` needs a struct with one field of type `bytes::Bytes`"
            );
        }
    }

    #[test]
    fn encoding_is_required_once_and_known() {
        let missing = "the encoding is missing: `#[payload(rkyv)]`, `#[payload(bytes)]` or `#[payload(loaned)]`";
        assert_eq!(
            refused(&parse_quote!(
                struct Page;
            )),
            missing
        );
        assert_eq!(
            refused(&parse_quote!(
                #[payload()]
                struct Page;
            )),
            missing
        );
        let unknown = parse_quote!(
            #[payload(json)]
            struct Page;
        );
        assert_eq!(
            refused(&unknown),
            "unknown encoding; `rkyv`, `bytes` and `loaned` are known"
        );
        let two = parse_quote!(
            #[payload(rkyv, bytes)]
            struct Page(Bytes);
        );
        assert_eq!(refused(&two), "a payload has one encoding");
    }
}
