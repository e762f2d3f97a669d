"use strict";var slotlab;(slotlab||={}).quiz=(()=>{var g=Object.defineProperty;var k=Object.getOwnPropertyDescriptor;var q=Object.getOwnPropertyNames;var C=Object.prototype.hasOwnProperty;var L=(e,t)=>{for(var n in t)g(e,n,{get:t[n],enumerable:!0})},T=(e,t,n,r)=>{if(t&&typeof t=="object"||typeof t=="function")for(let o of q(t))!C.call(e,o)&&o!==n&&g(e,o,{get:()=>t[o],enumerable:!(r=k(t,o))||r.enumerable});return e};var A=e=>T(g({},"__esModule",{value:!0}),e);var K={};L(K,{enhance:()=>S});function s(e,t={},...n){let r=document.createElement(e);for(let[o,a]of Object.entries(t))a!==!1&&r.setAttribute(o,a===!0?"":String(a));return r.append(...n),r}function f(e,t){let n=s("button",{type:"button"},e);return n.addEventListener("click",t),n}var z={right:"I had it",partly:"Partly",wrong:"I did not"},b=class{#t={};#e;constructor(t){this.#e=`slotlib quiz ${t}`;try{this.#t=JSON.parse(localStorage.getItem(this.#e)??"{}")}catch{this.#t={}}}get(t){return this.#t[t]}set(t,n){this.#t[t]=n,this.#n()}forget(){this.#t={},this.#n()}#n(){try{localStorage.setItem(this.#e,JSON.stringify(this.#t))}catch{}}};function R(e){return[...e.querySelectorAll("details")].flatMap(t=>{let n=t.previousElementSibling;if(t.querySelector("summary")?.textContent?.trim()!=="Answer"||!n)return[];if(!/^\d+\./.test(n.querySelector("strong")?.textContent??""))return[];let r=()=>{t.open=!0};return[{text:w(n),kind:"question",below:n,compare:r,marking:{after:t}}]})}function H(e){return[...e.querySelectorAll("blockquote")].flatMap(t=>{let n=[...t.querySelectorAll("p")].at(-1);if(!n||t.querySelector("strong")?.textContent!=="Predict.")return[];let r=t.nextElementSibling;for(;r&&!$(r);)r=r.nextElementSibling;let o=()=>{};return[{text:w(t),kind:"prediction",below:n,compare:o,marking:{after:r??t}}]})}function $(e){return e.matches("section[data-lab]")||e.querySelector("section[data-lab], .cell_output :is(img, script)")?!0:e.querySelector(".cell_output")!==null&&!e.matches(".tag_hide-input, .tag_hide-cell")}var w=e=>(e.textContent??"").replace(/\s+/g," ").trim();function S(e){let t=new b(location.pathname.split("/").at(-1)),n=[...R(e),...H(e)];if(n.length===0)return;let r=s("output"),o=()=>{r.textContent=N(n,t)},a=n.map(u=>P(u,t,o)),c=f("Forget my answers",()=>{t.forget();for(let u of a)u();o()});e.querySelector("section#quiz > :is(h1, h2)")?.after(s("p",{class:"quiz-tally"},r," Kept in this browser only. ",c)),document.head.append(s("style",{},D)),o()}function P({text:e,kind:t,below:n,compare:r,marking:o},a,c){let u=t==="question"?s("textarea",{rows:2}):s("input",{type:"text"}),E=t==="question"?"Your answer":"Your guess",M=s("button",{type:"submit"},t==="question"?"Compare":"Keep it"),p=s("output"),h=s("form",{class:"quiz-form"},s("label",{},E," ",u),M,p);h.addEventListener("submit",i=>{i.preventDefault();let l=u.value.trim();if(!l)return void(p.textContent="Write something first: a wrong guess teaches more than none.");a.set(e,{text:l}),r(),d(),c()}),n.after(h);let v=s("span"),x=Object.entries(z).map(([i,l])=>{let m=f(l,()=>{a.set(e,{text:a.get(e).text,mark:i}),d(),c()});return{mark:i,made:m}}),y=s("p",{class:"quiz-verdict"},v,...x.map(({made:i})=>i));o.after.after(y);let d=()=>{let i=a.get(e);u.value=i?.text??"",y.hidden=!i,p.textContent=i?t==="question"?"Compare with the answer below.":"Kept. Read on: it comes back below what is shown.":"",v.textContent=i?`You ${t==="question"?"wrote":"predicted"}: “${i.text}” `:"";for(let{mark:l,made:m}of x)m.setAttribute("aria-pressed",String(i?.mark===l))};return d(),d}function N(e,t){return["question","prediction"].map(n=>{let r=e.filter(c=>c.kind===n),o=r.flatMap(({text:c})=>t.get(c)??[]),a=o.filter(({mark:c})=>c==="right").length;return r.length?`${o.length} of ${r.length} ${n}s answered, ${a} right.`:""}).join(" ").trim()}var D=`
.quiz-form,
.quiz-verdict,
.quiz-tally {
  display: flex;
  flex-wrap: wrap;
  gap: 0.4rem 0.7rem;
  align-items: center;
  margin: 0.4rem 0 0.8rem;
}
.quiz-form label {
  display: flex;
  flex: 1 1 16rem;
  gap: 0.5rem;
  align-items: center;
  margin: 0;
}
.quiz-form :is(input, textarea) {
  flex: 1;
  min-width: 8rem;
  padding: 0.2rem 0.4rem;
  border: 1px solid var(--pst-color-border, #c9d3dd);
  border-radius: 0.25rem;
  background: var(--pst-color-background, #fff);
  color: inherit;
  font: inherit;
}
.quiz-form output {
  flex-basis: 100%;
  font-size: 0.9em;
  color: var(--pst-color-text-muted, #48566b);
}
.quiz-form output:empty {
  display: none;
}
.quiz-verdict[hidden] {
  display: none;
}
:is(.quiz-form, .quiz-verdict, .quiz-tally) button {
  padding: 0.15rem 0.7rem;
  border: 1px solid var(--pst-color-text-muted, #48566b);
  border-radius: 0.25rem;
  background: var(--pst-color-surface, #f3f4f5);
  color: inherit;
  font: inherit;
}
.quiz-verdict button[aria-pressed="true"] {
  border-color: var(--pst-color-primary, #0a7d91);
  box-shadow: inset 0 0 0 1px var(--pst-color-primary, #0a7d91);
}
@media print {
  .quiz-form,
  .quiz-verdict,
  .quiz-tally {
    display: none;
  }
}
`,O=document.querySelector("main")??document.body;S(O);return A(K);})();
