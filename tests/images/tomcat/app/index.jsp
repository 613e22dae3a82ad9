<%-- A page that is compiled when it is asked for the first time. --%>
<%@ page contentType="text/plain; charset=UTF-8" trimDirectiveWhitespaces="true" %>
Served by <%= application.getServerInfo() %> on Java <%= System.getProperty("java.version") %>
