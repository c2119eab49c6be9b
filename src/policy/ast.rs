//! Walking and rewriting syntax trees.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators as op};

use super::{expression::MAX_DEPTH, vocabulary::Named};

#[derive(Default)]
pub(super) struct TreeSize {
    pub(super) nodes: usize,
    pub(super) depth: usize,
}

impl TreeSize {
    pub(super) fn measure(&mut self, expr: &IdedExpr, depth: usize) {
        self.nodes += 1;
        self.depth = self.depth.max(depth);
        if depth <= MAX_DEPTH {
            for_each_child(expr, &mut |child| self.measure(child, depth + 1));
        }
    }
}

pub(super) fn for_each_child<'e>(expr: &'e IdedExpr, visit: &mut dyn FnMut(&'e IdedExpr)) {
    match &expr.expr {
        Expr::Call(call) => call
            .target
            .iter()
            .map(|target| &**target)
            .chain(&call.args)
            .for_each(visit),
        Expr::Comprehension(loops) => {
            [
                &loops.iter_range,
                &loops.accu_init,
                &loops.loop_cond,
                &loops.loop_step,
                &loops.result,
            ]
            .into_iter()
            .for_each(visit);
        }
        Expr::List(list) => list.elements.iter().for_each(visit),
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    visit(&entry.key);
                    visit(&entry.value);
                }
            }
        }
        Expr::Select(select) => visit(&select.operand),
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

/// Adds what an expression names of the variables.
pub(super) fn variables(expr: &IdedExpr, named: &mut Named) {
    match &expr.expr {
        Expr::Ident(name) => named.add(name, None),
        Expr::Select(select) => match &select.operand.expr {
            Expr::Ident(name) => named.add(name, Some(&select.field)),
            _ => variables(&select.operand, named),
        },
        _ => for_each_child(expr, &mut |child| variables(child, named)),
    }
}

pub(super) fn names_variable(expr: &IdedExpr) -> bool {
    let mut named = Named::default();
    variables(expr, &mut named);
    !named.is_empty()
}

pub(super) fn names_anything(expr: &IdedExpr) -> bool {
    let mut found = matches!(expr.expr, Expr::Ident(_));
    for_each_child(expr, &mut |child| found = found || names_anything(child));
    found
}

pub(super) fn string_literal(expr: &IdedExpr) -> Option<&str> {
    match &expr.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// Turns `findings.X` and `findings[k]` into `k in findings ? findings[k] : 0`.
pub(super) fn rewrite_count(tree: &mut IdedExpr) {
    let id = tree.id;
    let node = |expr: Expr| IdedExpr { id, expr };
    let (on, key) = match &tree.expr {
        Expr::Select(select) => {
            let key = Expr::Literal(LiteralValue::String(select.field.clone().into()));
            ((*select.operand).clone(), node(key))
        }
        Expr::Call(call) => match call.args.as_slice() {
            [on, key] => (on.clone(), key.clone()),
            _ => return,
        },
        _ => return,
    };
    let call = |name: &str, args: Vec<IdedExpr>| {
        Expr::Call(CallExpr {
            func_name: name.to_owned(),
            target: None,
            args,
        })
    };
    let found = node(call(op::IN, vec![key.clone(), on.clone()]));
    let count = node(call(op::INDEX, vec![on, key]));
    let none = node(Expr::Literal(LiteralValue::Int(0.into())));
    tree.expr = call(op::CONDITIONAL, vec![found, count, none]);
}

/// Whether the size of `range` is not fixed by the expression itself.
pub(super) fn sized_by_request(range: &IdedExpr) -> bool {
    match &range.expr {
        Expr::List(_) | Expr::Literal(_) => false,
        Expr::Call(call) if call.func_name == op::ADD => call.args.iter().any(sized_by_request),
        _ => true,
    }
}
