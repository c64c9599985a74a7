import { describe, expect, it } from "vitest";
import { escapeHtml, html, Markup, scriptData } from "../../../lib/report/html.js";

describe("html", () => {
  it("escapes what is put in, and leaves out what is not there", () => {
    const hostile = `<img src=x onerror="alert('1')">&`;
    expect(html`<p title="${hostile}">${hostile}</p>`.text).toBe(
      `<p title="&lt;img src=x onerror=&quot;alert(&#39;1&#39;)&quot;&gt;&amp;">&lt;img src=x onerror=&quot;alert(&#39;1&#39;)&quot;&gt;&amp;</p>`,
    );
    expect(html`${null}${undefined}${false}${0}${["<", html`<br>`]}`.text).toBe("0&lt;<br>");
    expect(html`${new Markup("<b>")}`.text).toBe("<b>");
  });

  it("replaces control characters, which HTML does not have", () => {
    expect(escapeHtml("a\0b\u001bc\td\n")).toBe("a\ufffdb\ufffdc\td\n");
  });
});

it("data of a script cannot end it", () => {
  const value = { text: "</script><!--<script>" };
  const { text } = scriptData(value);
  expect(text).not.toContain("<");
  expect(JSON.parse(text)).toEqual(value);
});
