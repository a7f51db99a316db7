-- How an API gateway built on nginx's Lua proxies one request: a context, a route looked up by
-- address and method, its plugins asked in every phase, a server picked, variables set for
-- proxy_pass. There is one route and it has no plugins: this is the least such a gateway does.
local balancer = require "ngx.balancer"

local routing = {}

local routes = { ["/rest"] = {
    methods = { GET = true, POST = true, PUT = true, PATCH = true, DELETE = true },
    plugins = {},
    nodes = {},
    timeout = { connect = 60, send = 60, read = 60 },
} }

-- Variables are read once per request and kept.
local variables = {
    __index = function(cache, name)
        local value = ngx.var[name]
        if value ~= nil then rawset(cache, name, value) end
        return value
    end,
    __newindex = function(cache, name, value)
        ngx.var[name] = value
        rawset(cache, name, value)
    end,
}

local function match(path, method)
    local stop = #path
    while stop > 0 do
        local route = routes[path:sub(1, stop)]
        if route and route.methods[method] then return route end
        stop = stop - 1
        while stop > 0 and path:byte(stop + 1) ~= 47 do stop = stop - 1 end
    end
end

local function run(phase, context)
    for _, plugin in ipairs(context.route.plugins) do
        if plugin[phase] then plugin[phase](context) end
    end
end

function routing.setup(host, port)
    routes["/rest"].nodes = { { host = host, port = port, weight = 1 } }
end

function routing.access()
    local context = { var = setmetatable({}, variables), turn = 0 }
    ngx.ctx.api = context
    local var = context.var
    context.route = match(var.uri, var.request_method)
    if not context.route then return ngx.exit(404) end
    run("rewrite", context)
    run("access", context)
    local nodes = context.route.nodes
    context.turn = context.turn % #nodes + 1
    context.server = nodes[context.turn]
    var.upstream_scheme = "http"
    var.upstream_host = var.http_host
    var.upstream_uri = var.uri .. (var.is_args or "") .. (var.args or "")
    var.forwarded_proto = var.http_x_forwarded_proto or var.scheme
    var.forwarded_host = var.http_x_forwarded_host or var.host
    var.forwarded_port = var.http_x_forwarded_port or var.server_port
    run("before_proxy", context)
end

function routing.balance()
    local context = ngx.ctx.api
    local timeout = context.route.timeout
    balancer.set_timeouts(timeout.connect, timeout.send, timeout.read)
    assert(balancer.set_current_peer(context.server.host, context.server.port))
end

function routing.header_filter()
    ngx.header["Server"] = "gateway"
    local context = ngx.ctx.api
    if context and context.route then run("header_filter", context) end
end

function routing.body_filter()
    local context = ngx.ctx.api
    if context and context.route then run("body_filter", context) end
end

function routing.log()
    local context = ngx.ctx.api
    if context and context.route then run("log", context) end
    ngx.ctx.api = nil
end

return routing
