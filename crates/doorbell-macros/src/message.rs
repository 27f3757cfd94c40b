//! `#[derive(Message)]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{DeriveInput, Error, Expr, Result, Type, parse_quote};

/// Returns the implementations that the attribute of `input` asks for.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let attribute = Attribute::of(input)?;
    let name = &input.ident;
    let (generics, arguments, conditions) = input.generics.split_for_impl();
    let number = &attribute.number;
    // The span of the number, so that a number that does not fit is underlined itself.
    let message_type = quote_spanned!(number.span()=> ::doorbell::MessageType::new(#number));
    let reply = &attribute.reply;
    let upload = attribute.item.as_ref().map(|item| {
        quote! {
            #[automatically_derived]
            impl #generics ::doorbell::Upload for #name #arguments #conditions {
                type Item = #item;
            }
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl #generics ::doorbell::Message for #name #arguments #conditions {
            const TYPE: ::doorbell::MessageType = #message_type;
            type Reply = #reply;
        }
        #upload
    })
}

/// What `#[message(…)]` says.
struct Attribute {
    number: Expr,
    reply: Type,
    item: Option<Type>,
}

/// The same while it is being read.
#[derive(Default)]
struct Parts {
    number: Option<Expr>,
    reply: Option<Type>,
    item: Option<Type>,
}

impl Attribute {
    fn of(input: &DeriveInput) -> Result<Self> {
        let mut parts = Parts::default();
        let attributes = || {
            input
                .attrs
                .iter()
                .filter(|attribute| attribute.path().is_ident("message"))
        };
        for attribute in attributes() {
            attribute.parse_nested_meta(|meta| parts.read(&meta))?;
        }
        let place = attributes()
            .next()
            .map_or_else(Span::call_site, Spanned::span);
        let number = parts.number.ok_or_else(|| {
            Error::new(
                place,
                "the number of the message is missing: `#[message(type = 7)]`",
            )
        })?;
        Ok(Self {
            number,
            reply: parts.reply.unwrap_or_else(|| parse_quote!(())),
            item: parts.item,
        })
    }
}

impl Parts {
    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("type") {
            set(&mut self.number, meta)
        } else if meta.path.is_ident("reply") {
            set(&mut self.reply, meta)
        } else if meta.path.is_ident("item") {
            set(&mut self.item, meta)
        } else {
            Err(meta.error("unknown key; `type`, `reply` and `item` are known"))
        }
    }
}

/// Reads the value after `=`, once.
fn set<T: syn::parse::Parse>(part: &mut Option<T>, meta: &ParseNestedMeta<'_>) -> Result<()> {
    if part.is_some() {
        return Err(meta.error("given twice"));
    }
    *part = Some(meta.value()?.parse()?);
    Ok(())
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
    fn number_and_reply_become_the_message() {
        let input = parse_quote! {
            #[message(type = 7, reply = Vec<Completion>)]
            struct Complete { prefix: String }
        };
        let expected = quote! {
            #[automatically_derived]
            impl ::doorbell::Message for Complete {
                const TYPE: ::doorbell::MessageType = ::doorbell::MessageType::new(7);
                type Reply = Vec<Completion>;
            }
        };
        assert_eq!(expanded(&input), expected.to_string());
    }

    #[test]
    fn reply_is_nothing_unless_named() {
        let input = parse_quote!(
            #[message(type = numbers::EDIT)]
            struct Edit;
        );
        let code = expanded(&input);
        assert!(
            code.contains("MessageType :: new (numbers :: EDIT)"),
            "{code}"
        );
        assert!(code.contains("type Reply = () ;"), "{code}");
        assert!(!code.contains("Upload"), "{code}");
    }

    #[test]
    fn item_makes_it_an_upload_whatever_the_order() {
        let input = parse_quote!(
            #[message(item = Chunk)]
            #[message(reply = u64, type = 9)]
            struct Store;
        );
        let code = expanded(&input);
        assert!(
            code.contains("impl :: doorbell :: Upload for Store { type Item = Chunk ; }"),
            "{code}"
        );
    }

    #[test]
    fn generic_parameters_and_their_bounds_are_kept() {
        let input = parse_quote! {
            #[message(type = 7)]
            struct Wrapped<T: Clone> where T: Send { value: T }
        };
        let code = expanded(&input);
        assert!(
            code.contains(
                "impl < T : Clone > :: doorbell :: Message for Wrapped < T > where T : Send"
            ),
            "{code}"
        );
    }

    #[test]
    fn number_is_required() {
        let message = "the number of the message is missing: `#[message(type = 7)]`";
        assert_eq!(
            refused(&parse_quote!(
                struct Complete;
            )),
            message
        );
        assert_eq!(
            refused(&parse_quote!(
                #[message(reply = u8)]
                struct Complete;
            )),
            message
        );
    }

    #[test]
    fn unknown_repeated_and_incomplete_keys_are_refused() {
        let unknown = parse_quote!(
            #[message(type = 7, answer = u8)]
            struct Complete;
        );
        assert_eq!(
            refused(&unknown),
            "unknown key; `type`, `reply` and `item` are known"
        );
        let repeated = parse_quote!(
            #[message(type = 7, type = 8)]
            struct Complete;
        );
        assert_eq!(refused(&repeated), "given twice");
        let incomplete = parse_quote!(
            #[message(type)]
            struct Complete;
        );
        assert_eq!(refused(&incomplete), "expected `=`");
    }
}
