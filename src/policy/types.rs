//! The type checker: every name known, every operand of a type its operator takes, every pattern a literal.
//!
//! It walks the tree once and rewrites it on the way, so that `findings.X` counts 0 for what was not found, and
//! `matches` finds its pattern compiled.

use std::collections::BTreeMap;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators as op,
};

use super::{
    ast::{rewrite_count, sized_by_request, string_literal},
    nearest::nearest,
    pattern::{self, Patterns},
    vocabulary::{self, Record, Type, VARIABLES, Vocabulary},
};

/// What `matches` is rewritten to; no expression can write this name.
pub(super) const MATCHES: &str = "@matches";
/// Deepest nesting of `exists`, `all`, `filter`, `map` and `exists_one`.
const MAX_LOOPS: usize = 2;

const FUNCTIONS: [&str; 6] = ["size", "matches", "string", "int", "double", "has"];
const METHODS: [&str; 10] = [
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "size",
    "exists",
    "all",
    "exists_one",
    "filter",
    "map",
];

/// A fault at a node of the tree.
#[derive(Debug)]
pub(super) struct TypeFault {
    pub(super) node: u64,
    pub(super) message: String,
    pub(super) suggestion: Option<String>,
}

pub(super) struct Checker<'a> {
    vocabulary: &'a Vocabulary,
    scope: Vec<(String, Type)>,
    /// Loops around the current node, each with whether it runs over what the request brings.
    loops: Vec<bool>,
    pub(super) faults: Vec<TypeFault>,
    pub(super) patterns: Patterns,
}

impl<'a> Checker<'a> {
    pub(super) fn new(vocabulary: &'a Vocabulary) -> Self {
        Self {
            vocabulary,
            scope: Vec::new(),
            loops: Vec::new(),
            faults: Vec::new(),
            patterns: BTreeMap::new(),
        }
    }

    /// Checks a whole condition.
    pub(super) fn condition(&mut self, tree: &mut IdedExpr) {
        let id = tree.id;
        match self.expr(tree) {
            Type::Bool => {}
            Type::Dyn if !self.faults.is_empty() => {}
            Type::Dyn => {
                self.fault(id, "the condition must be a bool, and this may be anything; compare it, as in `… == true`")
            }
            other => self.fault(id, format!("the condition must be a bool, and this is a {other}")),
        }
    }

    fn fault(&mut self, node: u64, message: impl Into<String>) {
        self.faults.push(TypeFault {
            node,
            message: message.into(),
            suggestion: None,
        });
    }

    fn unknown<'n>(
        &mut self,
        node: u64,
        message: String,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) -> Type {
        let suggestion = nearest(name, known);
        self.faults.push(TypeFault {
            node,
            message,
            suggestion,
        });
        Type::Dyn
    }

    fn expr(&mut self, tree: &mut IdedExpr) -> Type {
        let id = tree.id;
        match &mut tree.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Bytes(_) => Type::Bytes,
                LiteralValue::Double(_) => Type::Double,
                LiteralValue::Int(_) => Type::Int,
                LiteralValue::Null => Type::Null,
                LiteralValue::String(_) => Type::String,
                LiteralValue::UInt(_) => Type::Uint,
            },
            Expr::Ident(name) => {
                let name = name.clone();
                self.ident(id, &name)
            }
            Expr::List(list) => {
                let mut of = None;
                for element in &mut list.elements {
                    let element = self.expr(element);
                    of = Some(match of {
                        None => element,
                        Some(of) if of == element => of,
                        Some(_) => Type::Dyn,
                    });
                }
                Type::List(Box::new(of.unwrap_or(Type::Dyn)))
            }
            Expr::Select(select) => {
                let (field, test) = (select.field.clone(), select.test);
                let on = self.expr(&mut select.operand);
                self.selected(tree, &on, &field, test)
            }
            Expr::Call(_) => self.call(tree),
            Expr::Comprehension(loops) => self.comprehension(id, loops),
            Expr::Map(_) | Expr::Struct(_) => {
                self.fault(
                    id,
                    "map and message literals are not supported in a condition",
                );
                Type::Dyn
            }
            Expr::Unspecified => {
                self.fault(id, "the expression is incomplete");
                Type::Dyn
            }
        }
    }

    fn ident(&mut self, id: u64, name: &str) -> Type {
        if let Some((_, of)) = self.scope.iter().rev().find(|(bound, _)| bound == name) {
            return of.clone();
        }
        vocabulary::variable(name).unwrap_or_else(|| {
            let known: Vec<String> = VARIABLES
                .iter()
                .map(|v| (*v).to_owned())
                .chain(self.scope.iter().map(|(n, _)| n.clone()))
                .collect();
            let known = known
                .iter()
                .map(String::as_str)
                .filter(|name| !name.starts_with('@'));
            self.unknown(id, format!("unknown variable `{name}`"), name, known)
        })
    }

    /// `on.field`, or `has(on.field)` where `test`.
    fn selected(&mut self, tree: &mut IdedExpr, on: &Type, field: &str, test: bool) -> Type {
        let id = tree.id;
        let found = match on {
            Type::Record(record) => record
                .field(field)
                .unwrap_or_else(|| self.unknown_field(id, *record, field)),
            Type::Claims => self.claim(id, field),
            Type::Findings => {
                self.entity(id, field);
                if !test {
                    rewrite_count(tree);
                }
                Type::Int
            }
            Type::Dyn => Type::Dyn,
            other => {
                self.fault(id, format!("a {other} has no field `{field}`"));
                Type::Dyn
            }
        };
        if test { Type::Bool } else { found }
    }

    fn unknown_field(&mut self, id: u64, record: Record, field: &str) -> Type {
        let fields = record.fields().iter().copied();
        let mut message = format!("`{}` has no field `{field}`", record.name());
        if nearest(field, fields.clone()).is_none() {
            let fields: Vec<_> = fields.clone().map(|field| format!("`{field}`")).collect();
            message.push_str("; it has ");
            message.push_str(&fields.join(", "));
        }
        self.unknown(id, message, field, fields)
    }

    fn claim(&mut self, id: u64, name: &str) -> Type {
        let vocabulary = self.vocabulary;
        if !vocabulary.claims.contains(name) {
            let message = format!("claim `{name}` is not listed under `claims` of any issuer");
            self.unknown(
                id,
                message,
                name,
                vocabulary.claims.iter().map(String::as_str),
            );
        }
        Type::Dyn
    }

    fn entity(&mut self, id: u64, name: &str) {
        let vocabulary = self.vocabulary;
        if !vocabulary.entities.contains(name) {
            let message = format!("unknown entity `{name}`: no detector finds it");
            self.unknown(
                id,
                message,
                name,
                vocabulary.entities.iter().map(|entity| &**entity),
            );
        }
    }

    fn call(&mut self, tree: &mut IdedExpr) -> Type {
        let id = tree.id;
        let Expr::Call(call) = &mut tree.expr else {
            return Type::Dyn;
        };
        let name = call.func_name.clone();
        if let Some(target) = call.target.as_deref_mut() {
            if !METHODS.contains(&name.as_str()) {
                let message = format!("unknown method `{name}`");
                return self.unknown(id, message, &name, METHODS);
            }
            if !matches!(
                name.as_str(),
                "contains" | "startsWith" | "endsWith" | "matches" | "size"
            ) {
                self.fault(
                    id,
                    format!(
                        "`{name}` takes a variable and an expression, as in `list.{name}(x, …)`"
                    ),
                );
                return Type::Dyn;
            }
            let on = self.expr(target);
            let mut operands = vec![on];
            for arg in &mut call.args {
                operands.push(self.expr(arg));
            }
            return self.function(tree, &name, &operands, true);
        }
        let mut operands = Vec::with_capacity(call.args.len());
        for arg in &mut call.args {
            operands.push(self.expr(arg));
        }
        if FUNCTIONS.contains(&name.as_str()) {
            return self.function(tree, &name, &operands, false);
        }
        match (name.as_str(), operands.as_slice()) {
            (op::INDEX, [on, key]) => self.indexed(tree, on, key),
            (op::IN, [item, container]) => self.contained(tree, item, container),
            (op::CONDITIONAL, [condition, yes, no]) => {
                self.all_bool(id, &name, std::slice::from_ref(condition));
                match (yes, no) {
                    (yes, no) if yes == no => yes.clone(),
                    _ => Type::Dyn,
                }
            }
            (
                op::LOGICAL_AND | op::LOGICAL_OR | op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE,
                operands,
            ) => {
                self.all_bool(id, &name, operands);
                Type::Bool
            }
            (op::EQUALS | op::NOT_EQUALS, [left, right]) => {
                if !comparable(left, right) {
                    self.fault(id, format!("a {left} is never equal to a {right}"));
                }
                Type::Bool
            }
            (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [left, right]) => {
                if !ordered(left, right) {
                    self.cannot(id, &name, left, right);
                }
                Type::Bool
            }
            (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [left, right]) => {
                self.arithmetic(id, &name, left, right)
            }
            (op::NEGATE, [of @ (Type::Int | Type::Double | Type::Dyn)]) => of.clone(),
            (op::NEGATE, [of]) => {
                self.fault(id, format!("`-` cannot be applied to a {of}"));
                Type::Dyn
            }
            _ => self.unknown(id, format!("unknown function `{name}`"), &name, FUNCTIONS),
        }
    }

    fn all_bool(&mut self, id: u64, operator: &str, operands: &[Type]) {
        for operand in operands {
            if !matches!(operand, Type::Bool | Type::Dyn) {
                self.fault(
                    id,
                    format!(
                        "`{}` takes bools, and one side is a {operand}",
                        spelled(operator)
                    ),
                );
            }
        }
    }

    fn cannot(&mut self, id: u64, operator: &str, left: &Type, right: &Type) {
        self.fault(
            id,
            format!(
                "`{}` cannot be applied to a {left} and a {right}",
                spelled(operator)
            ),
        );
    }

    fn arithmetic(&mut self, id: u64, operator: &str, left: &Type, right: &Type) -> Type {
        match (operator, left, right) {
            (op::ADD, Type::String, Type::String) => Type::String,
            (op::ADD, Type::List(left), Type::List(right)) => {
                // The empty list of `map` and `filter` takes the type of what is added to it.
                let of = if **left == Type::Dyn || left == right {
                    right.clone()
                } else {
                    Box::new(Type::Dyn)
                };
                Type::List(of)
            }
            (op::MODULO, Type::Double, _) | (op::MODULO, _, Type::Double) => {
                self.cannot(id, operator, left, right);
                Type::Dyn
            }
            (_, Type::Int | Type::Uint | Type::Double, _) if left == right => left.clone(),
            (_, Type::Dyn, _) | (_, _, Type::Dyn) => Type::Dyn,
            _ => {
                self.cannot(id, operator, left, right);
                Type::Dyn
            }
        }
    }

    /// `on[key]`.
    fn indexed(&mut self, tree: &mut IdedExpr, on: &Type, key: &Type) -> Type {
        let id = tree.id;
        let Expr::Call(call) = &tree.expr else {
            return Type::Dyn;
        };
        let Some(key_expr) = call.args.get(1) else {
            return Type::Dyn;
        };
        let literal = string_literal(key_expr).map(str::to_owned);
        let simple = literal.is_some() || matches!(key_expr.expr, Expr::Ident(_));
        match (on, key) {
            (Type::List(of), Type::Int | Type::Dyn) => (**of).clone(),
            (Type::Record(record), Type::String) => match literal {
                Some(name) => record
                    .field(&name)
                    .unwrap_or_else(|| self.unknown_field(id, *record, &name)),
                None => {
                    self.fault(
                        id,
                        format!("name the field of `{}` by a literal", record.name()),
                    );
                    Type::Dyn
                }
            },
            (Type::Claims, Type::String | Type::Dyn) => match literal {
                Some(name) => self.claim(id, &name),
                None => Type::Dyn,
            },
            (Type::Findings, Type::String) if simple => {
                if let Some(name) = literal {
                    self.entity(id, &name);
                }
                rewrite_count(tree);
                Type::Int
            }
            (Type::Findings, Type::String | Type::Dyn) => {
                self.fault(id, "`findings[…]` takes an entity in quotes or the variable of a loop over `findings`");
                Type::Dyn
            }
            (Type::Dyn, _) => Type::Dyn,
            (on, key) => {
                self.fault(id, format!("a {on} cannot be indexed by a {key}"));
                Type::Dyn
            }
        }
    }

    /// `item in container`.
    fn contained(&mut self, tree: &mut IdedExpr, item: &Type, container: &Type) -> Type {
        let id = tree.id;
        let Expr::Call(call) = &tree.expr else {
            return Type::Bool;
        };
        let literal = call
            .args
            .first()
            .and_then(string_literal)
            .map(str::to_owned);
        match container {
            Type::Dyn => {}
            Type::List(of) if comparable(item, of) => {}
            Type::List(of) => self.fault(id, format!("a {item} is never in a list of {of}")),
            Type::Claims | Type::Findings | Type::Record(_)
                if !matches!(item, Type::String | Type::Dyn) =>
            {
                self.fault(id, format!("a {item} is never the name of a field"));
            }
            Type::Findings => {
                if let Some(name) = literal {
                    self.entity(id, &name);
                }
            }
            Type::Claims => {
                if let Some(name) = literal {
                    self.claim(id, &name);
                }
            }
            Type::Record(record) => {
                if let Some(name) = literal.filter(|name| record.field(name).is_none()) {
                    self.unknown_field(id, *record, &name);
                }
            }
            other => self.fault(
                id,
                format!("`in` takes a list or a map on its right, and this is a {other}"),
            ),
        }
        Type::Bool
    }

    fn function(
        &mut self,
        tree: &mut IdedExpr,
        name: &str,
        operands: &[Type],
        method: bool,
    ) -> Type {
        let id = tree.id;
        match (name, operands) {
            (
                "size",
                [
                    Type::String
                    | Type::Bytes
                    | Type::List(_)
                    | Type::Dyn
                    | Type::Claims
                    | Type::Findings,
                ],
            ) => Type::Int,
            ("matches", [Type::String | Type::Dyn, _]) => {
                if let Expr::Call(call) = &mut tree.expr {
                    self.pattern(id, call);
                }
                Type::Bool
            }
            (
                "contains" | "startsWith" | "endsWith",
                [Type::String | Type::Dyn, Type::String | Type::Dyn],
            ) if method => Type::Bool,
            (
                "string",
                [
                    Type::String
                    | Type::Int
                    | Type::Uint
                    | Type::Double
                    | Type::Bool
                    | Type::Bytes
                    | Type::Dyn,
                ],
            ) => Type::String,
            ("int", [Type::String | Type::Int | Type::Uint | Type::Double | Type::Dyn]) => {
                Type::Int
            }
            ("double", [Type::String | Type::Int | Type::Uint | Type::Double | Type::Dyn]) => {
                Type::Double
            }
            ("has", _) => {
                self.fault(
                    id,
                    "`has` takes a field, as in `has(principal.claims.department)`",
                );
                Type::Bool
            }
            (name, operands) => {
                let operands: Vec<String> = operands.iter().map(Type::to_string).collect();
                let on = if operands.is_empty() {
                    "nothing".to_owned()
                } else {
                    operands.join(" and ")
                };
                self.fault(id, format!("`{name}` cannot be applied to {on}"));
                if name == "size" {
                    Type::Int
                } else {
                    Type::Bool
                }
            }
        }
    }

    /// Compiles the pattern of a call to `matches`, and points the call at it.
    fn pattern(&mut self, id: u64, call: &mut CallExpr) {
        let Some(pattern) = call.args.last().and_then(string_literal).map(str::to_owned) else {
            return self.fault(id, "the pattern of `matches` must be a literal, so that it is checked when the file loads");
        };
        match pattern::compile(&pattern) {
            Ok(compiled) => {
                self.patterns.insert(pattern, compiled);
                if let Some(target) = call.target.take() {
                    call.args.insert(0, *target);
                }
                MATCHES.clone_into(&mut call.func_name);
            }
            Err(message) => self.fault(id, message),
        }
    }

    fn comprehension(&mut self, id: u64, loops: &mut ComprehensionExpr) -> Type {
        let over = self.expr(&mut loops.iter_range);
        let item = match over {
            Type::List(of) => *of,
            Type::Claims | Type::Findings | Type::Record(_) => Type::String,
            Type::Dyn => Type::Dyn,
            other => {
                self.fault(
                    id,
                    format!("only a list or a map can be looped over, and this is a {other}"),
                );
                Type::Dyn
            }
        };
        if vocabulary::variable(&loops.iter_var).is_some() {
            self.fault(
                id,
                format!(
                    "the loop variable `{}` hides the variable of that name",
                    loops.iter_var
                ),
            );
        }
        // The price of a loop in a loop is a product; only one factor may be the caller's to choose.
        let unbounded = sized_by_request(&loops.iter_range);
        if self.loops.len() >= MAX_LOOPS {
            self.fault(id, format!("loops nest at most {MAX_LOOPS} deep"));
        } else if unbounded && self.loops.contains(&true) {
            self.fault(
                id,
                "a loop over what the request brings cannot stand inside another such loop",
            );
        }
        let init = self.expr(&mut loops.accu_init);
        self.loops.push(unbounded);
        self.scope.push((loops.iter_var.clone(), item));
        self.scope.push((loops.accu_var.clone(), init));
        self.expr(&mut loops.loop_cond);
        let step = self.expr(&mut loops.loop_step);
        if let Some((_, accu)) = self.scope.last_mut()
            && *accu == Type::List(Box::new(Type::Dyn))
            && matches!(step, Type::List(_))
        {
            *accu = step;
        }
        let result = self.expr(&mut loops.result);
        self.scope.truncate(self.scope.len().saturating_sub(2));
        self.loops.pop();
        result
    }
}

/// An operator as its author wrote it.
pub(super) fn spelled(operator: &str) -> &str {
    match operator {
        op::CONDITIONAL => "?:",
        op::IN => "in",
        op::INDEX => "[]",
        MATCHES => "matches",
        other => other.trim_matches(|c| c == '_' || c == '@'),
    }
}

fn numeric(of: &Type) -> bool {
    matches!(of, Type::Int | Type::Uint | Type::Double)
}

fn comparable(left: &Type, right: &Type) -> bool {
    match (left, right) {
        (Type::Dyn, _) | (_, Type::Dyn) => true,
        (Type::List(left), Type::List(right)) => comparable(left, right),
        (left, right) => left == right || (numeric(left) && numeric(right)),
    }
}

fn ordered(left: &Type, right: &Type) -> bool {
    let orderable = |of: &Type| {
        numeric(of) || matches!(of, Type::String | Type::Bool | Type::Bytes | Type::Dyn)
    };
    orderable(left) && orderable(right) && comparable(left, right)
}
